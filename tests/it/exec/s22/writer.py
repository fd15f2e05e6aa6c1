# Follows SEED and BIG. Writes 10,000 lines a second together with a child that is replaced when it was killed, and among
# them all that makes a log hard: carriage returns, characters in two writes, bytes that are no text, no end of line.
import os, random, subprocess, sys, time

me = sys.argv[1] if len(sys.argv) > 1 else 'script.0'
draw = random.Random(f'{SEED} {me}')
receipt = os.open(f'receipt.{me}', os.O_CREAT | os.O_WRONLY)
count = 0


def put(data):
    view = memoryview(data)
    while view:
        view = view[os.write(draw.choice((1, 2)), view):]


def numbered(lines):
    global count
    fill = draw.choice(('loss 0.25', 'größer: 10 €', '\x1b[31mred\x1b[0m', '…'))
    put(''.join(f'<{me}:{count + n}> {fill}\n' for n in range(lines)).encode())
    count += lines
    os.pwrite(receipt, b'%020d' % count, 0)


def progress():
    for percent in range(0, 100, draw.randrange(7, 40)):
        put(b'\repoch: %3d%%' % percent)
        time.sleep(0.001)
    put(draw.choice((b'\repoch: done\n', b'\r\n', b'\n')))


def split():
    data = 'halb é€𝄞 halb\n'.encode()
    at = draw.randrange(1, len(data))
    put(data[:at])
    time.sleep(draw.random() * 0.005)
    put(data[at:])


def large():
    for _ in range(10):
        put('0123456789abcdé€'.encode() * 52_000)
    put(b'\n')


def main():
    generation = 0
    child = None
    own = 80 if me == 'script.0' else 20
    due = time.monotonic()
    at_large = draw.randrange(20, 120) if BIG and me == 'script.0' else -1
    turn = 0
    while True:
        if me == 'script.0' and (child is None or child.poll() is not None):
            child = subprocess.Popen([sys.executable, sys.argv[0], f'child.{generation}'])
            generation += 1
        numbered(own)
        if me == 'script.0':
            chance = draw.random()
            if chance < 0.05:
                progress()
            elif chance < 0.10:
                split()
            elif chance < 0.15:
                put(b'windows\r\nbroken \xff\xc3\x28\xe2\x82\n\n')
            elif chance < 0.20:
                put(b'unfinished, and the next one follows ')
            if turn == at_large:
                large()
        turn += 1
        due = max(due + 0.01, time.monotonic() - 0.5)
        time.sleep(max(0, due - time.monotonic()))


main()
