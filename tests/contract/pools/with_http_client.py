import http.client
import json
from urllib.parse import urlsplit

from rounds import PLAN, Answer, run


class Connection(http.client.HTTPConnection):
    connected = 0

    def connect(self):
        self.connected += 1
        super().connect()


connection = Connection(urlsplit(PLAN["url"]).netloc)


def send(method, path, headers, body):
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return Answer(answer.status, answer.headers.get("Content-Encoding"), json.loads(answer.read()), None)


run(send, lambda: connection.connected)
