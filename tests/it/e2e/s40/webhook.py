"""A webhook as a service mesh has one: each pod gets a container beside its own, and its first container a variable.

webhook.py HOST:PORT CERT KEY CONTAINER    CONTAINER is that container, as JSON
"""

import base64
import http.server
import json
import ssl
import sys


def patches(pod, container):
    spec = pod['spec']
    if spec.get('initContainers'):
        yield {'op': 'add', 'path': '/spec/initContainers/0', 'value': container}
    else:
        yield {'op': 'add', 'path': '/spec/initContainers', 'value': [container]}
    variable = {'name': 'ADDED', 'value': 'by-webhook'}
    if spec['containers'][0].get('env'):
        yield {'op': 'add', 'path': '/spec/containers/0/env/-', 'value': variable}
    else:
        yield {'op': 'add', 'path': '/spec/containers/0/env', 'value': [variable]}


class Webhook(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        request = review['request']
        patch = json.dumps(list(patches(request['object'], self.server.container)))
        answer = {
            'apiVersion': review['apiVersion'],
            'kind': review['kind'],
            'response': {
                'uid': request['uid'],
                'allowed': True,
                'patchType': 'JSONPatch',
                'patch': base64.b64encode(patch.encode()).decode(),
            },
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(at, cert, key, container):
    host, port = at.rsplit(':', 1)
    server = http.server.ThreadingHTTPServer((host, int(port)), Webhook)
    server.daemon_threads = True
    server.container = json.loads(container)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print('listening', flush=True)
    server.serve_forever()


main(*sys.argv[1:])
