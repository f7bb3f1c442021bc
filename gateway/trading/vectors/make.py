#!/usr/bin/env python3
"""Signs the published vectors with somebody else's Ed25519 (PyPI `cryptography`), so that our own check proves something.

usage: make.py > signatures.json        make.py check signatures.json
"""
import base64, hashlib, json, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ORDER = '{"market_id":"market_7a6f1c2e-0000-4c1d-8d7e-6f1f0a2b3c4d","side":"buy","type":"limit","quantity":"3","price":"0.81","time_in_force":"gtc"}'
REQUESTS = [
    ("an order as JavaScript sends it", 1, "1790000000", "POST", "/v1/orders", ORDER),
    ("the same order as Python sends it", 1, "1790000000", "POST", "/v1/orders", ORDER.replace('":"', '": "').replace(',"', ', "')),
    ("a list; the query is not signed", 1, "1790000000", "GET", "/v1/orders", ""),
    ("the beta path", 1, "1790000001", "GET", "/v1/trading/orders", ""),
    ("the oldest path", 1, "1790000001", "GET", "/api/v1/trading/orders", ""),
    ("a cancel", 2, "1790000002", "DELETE", "/v1/orders/order_5b1d7e0a-52d3-4f0e-9a55-0f5d0c9b7a11", ""),
    ("an update", 2, "1790000003", "PUT", "/v1/orders/order_5b1d7e0a-52d3-4f0e-9a55-0f5d0c9b7a11", '{"price":"0.79"}'),
    ("a body beyond ASCII", 3, "1790000004", "POST", "/v1/signing-keys", '{"signing_key":{"label":"Büro – 鍵 🗝","public_key":"…"}}'),
    ("a body with line ends", 3, "1790000005", "PATCH", "/v1/self/system-settings/auto-buy", '{\r\n\t"auto_buy_enabled": true\n}\n'),
]


def vector(name, seed, timestamp, method, path, body):
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32))
    public = key.public_key().public_bytes_raw()
    message = timestamp + method + path + body
    return {
        "name": name,
        "private_key": base64.b64encode(bytes([seed] * 32)).decode(),
        "public_key": base64.b64encode(public).decode(),
        "timestamp": timestamp,
        "method": method,
        "path": path,
        "body": body,
        "message": message,
        "signature": base64.b64encode(key.sign(message.encode())).decode(),
        "fingerprint": base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip("="),
    }


vectors = [vector(*request) for request in REQUESTS]
if sys.argv[1:2] == ["check"]:
    with open(sys.argv[2], encoding="utf-8") as file:
        assert json.load(file)["vectors"] == vectors, "the file holds what is signed here"
    print(f"{len(vectors)} vectors agree")
else:
    print(json.dumps({"scheme": "timestamp + METHOD + path + body, Ed25519, contract 5.1", "vectors": vectors}, ensure_ascii=False, indent=1))
