"""What a closed network has: https by an authority of its own, one proxy as the way out, and a log of every packet.

front.py tls HOST:PORT CERT KEY HOST:PORT LOG     takes TLS, passes plain bytes on
front.py proxy HOST:PORT LOG NAME=HOST:PORT ...   an HTTP proxy that knows these names alone
front.py packets INTERFACE LOG                    one line for each new "FROM TO PROTOCOL PORT" or "FROM dns NAME"

Each request is one line: "HOST METHOD TARGET AGENT" behind TLS, "METHOD TARGET" at the proxy.
"""

import select
import socket
import ssl
import struct
import sys
import threading


def address(text):
    host, port = text.rsplit(':', 1)
    return host, int(port)


def pump(one, other, told=lambda data: None):
    """Both ways until either side ends; what comes from the first is told."""
    peer = {one: other, other: one}
    try:
        while True:
            ready = [end for end in peer if isinstance(end, ssl.SSLSocket) and end.pending()]
            for end in ready or select.select(list(peer), [], [])[0]:
                data = end.recv(65536)
                if not data:
                    return
                if end is one:
                    told(data)
                peer[end].sendall(data)
    except OSError:
        pass
    finally:
        close(one)
        close(other)


def close(end):
    """By TLS with its farewell: some clients take a connection without it for a broken one."""
    try:
        if isinstance(end, ssl.SSLSocket):
            end.settimeout(2)
            end.unwrap()
    except (OSError, ValueError):
        pass
    end.close()


def listening(at, serve):
    listener = socket.create_server(address(at), backlog=64)
    print('listening', flush=True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()


def context(cert, key):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(cert, key)
    return made


def requests(log):
    """Writes a line for each head of a request, which clients send in one piece."""
    lines = open(log, 'a', buffering=1)

    def told(data):
        first, *fields = data.split(b'\r\n\r\n', 1)[0].decode(errors='replace').split('\r\n')
        words = first.split(' ')
        if len(words) == 3 and words[2].startswith('HTTP/1.'):
            fields = {name.lower(): value.strip() for name, _, value in (field.partition(':') for field in fields)}
            lines.write(f"{fields.get('host')} {words[0]} {words[1]} {fields.get('user-agent')}\n")

    return told


def tls(at, cert, key, target, log):
    wrap, told = context(cert, key), requests(log)

    def serve(client):
        try:
            pump(wrap.wrap_socket(client, server_side=True), socket.create_connection(address(target)), told)
        except OSError:
            client.close()

    listening(at, serve)


def proxy(at, log, *names):
    known = dict(name.split('=', 1) for name in names)
    lines = open(log, 'a', buffering=1)

    def serve(client):
        head = b''
        while b'\r\n\r\n' not in head:
            data = client.recv(65536)
            if not data:
                return
            head += data
        method, target, _ = head.split(b'\r\n', 1)[0].decode().split(' ', 2)
        lines.write(f'{method} {target}\n')
        host = target.rsplit(':', 1)[0]
        if method != 'CONNECT' or host not in known:
            client.sendall(b'HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
            client.close()
            return
        server = socket.create_connection(address(known[host]))
        client.sendall(b'HTTP/1.1 200 Connection established\r\n\r\n')
        pump(client, server)

    listening(at, serve)


def question(data):
    """The name that a DNS query asks for."""
    at, labels = 12, []
    while at < len(data) and data[at]:
        labels.append(data[at + 1:at + 1 + data[at]].decode(errors='replace'))
        at += 1 + data[at]
    return '.'.join(labels)


def packets(interface, log):
    taps = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    taps.bind((interface, 0))
    lines, seen = open(log, 'a', buffering=1), set()
    print('listening', flush=True)
    while True:
        frame = taps.recv(65536)
        if len(frame) < 34 or frame[12:14] != b'\x08\x00':
            continue
        start = 14 + (frame[14] & 15) * 4
        protocol, source, target = frame[23], socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
        port = 0
        if protocol in (6, 17) and len(frame) >= start + 8:
            port = struct.unpack('!H', frame[start + 2:start + 4])[0]
            if protocol == 6 and frame[start + 13] & 0x12 != 0x02:
                continue  # only what opens a connection
            if protocol == 17 and port == 53:
                line = f'{source} dns {question(frame[start + 8:])}'
                if line not in seen:
                    seen.add(line)
                    lines.write(line + '\n')
        line = f'{source} {target} {protocol} {port}'
        if line not in seen:
            seen.add(line)
            lines.write(line + '\n')


{'tls': tls, 'proxy': proxy, 'packets': packets}[sys.argv[1]](*sys.argv[2:])
