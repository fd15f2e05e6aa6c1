# Follows MEMORY_AFTER, MEMORY_STEP and MORE. Writes 2,000 lines a second, each into a record outside of the pod before
# it is printed: who is killed has printed all that is recorded but, perhaps, the last line or a part of it. After
# MEMORY_AFTER lines a child takes memory, MEMORY_STEP MiB at a time, until the kernel kills; after SIGTERM come MORE
# lines and the end.
import contextlib, os, signal, time

record = os.open('/record/' + os.environ['CLEARML_TASK_ID'], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
count = 0
last = None


def write(file, data):
    view = memoryview(data)
    while view:
        view = view[os.write(file, view):]


def parts():
    # Most lines are one write; some overwrite themselves as a progress bar does, some are cut within a character.
    mark = f'<script:{count}> ' + ('loss 0.25' if last is None else 'in its grace')
    if count % 20 == 7:
        return [b'\r 10%', b'\r 50%', f'\r100% {mark}\n'.encode()]
    if count % 20 == 13:
        data = f'{mark} for 10 €, or a 𝄞\n'.encode()
        return [data[:-3], data[-3:]]
    return [f'{mark}\n'.encode()]


def line():
    global count
    writes = parts()
    write(record, b''.join(writes))
    for part in writes:
        write(1, part)
        if len(writes) > 1:
            time.sleep(0.001)
    count += 1


def end_soon(*_):
    global last
    if last is None:
        last = count + MORE


def adjust(process, points):
    file = os.open(f'/proc/{process}/oom_score_adj', os.O_WRONLY)
    os.write(file, str(points).encode())
    os.close(file)


def take_memory():
    # By cgroup v2 the kernel kills all of the container at once. By v1 it kills the process that counts most, and
    # process 1 takes the others along: so that one has to count most, and what is taken has to count for none.
    adjust(1, 1000)
    with contextlib.suppress(PermissionError):
        adjust('self', 0)
    if os.fork() == 0:
        memory = os.memfd_create('memory')
        while True:
            os.write(memory, bytes(MEMORY_STEP << 20))
            time.sleep(0.02)


signal.signal(signal.SIGTERM, end_soon)
due = time.monotonic()
while last is None or count < last:
    if count == MEMORY_AFTER:
        take_memory()
    line()
    if count % 20 == 0:
        due = max(due + 0.01, time.monotonic() - 0.5)
        time.sleep(max(0, due - time.monotonic()))
