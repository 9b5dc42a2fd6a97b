import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

from rounds import PLAN, Answer, run


class Connection(HTTPConnection):
    connected = 0

    def connect(self):
        Connection.connected += 1
        super().connect()


HTTPConnectionPool.ConnectionCls = Connection
session = requests.Session()
session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=1))


def send(method, path, headers, body):
    answer = session.request(method, PLAN["url"] + path, headers=headers, data=body)
    sent = answer.request.headers.get("Content-Type")
    return Answer(answer.status_code, answer.headers.get("Content-Encoding"), answer.json(), sent)


run(send, lambda: Connection.connected)
