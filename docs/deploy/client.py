"""Ask a server for the nearest sentences: ``python client.py http://127.0.0.1:8080 "a sentence"``.

Wants ``pip install httpx``. The token, if the server has one, is taken from the environment: ``SPARSE_STS_TOKEN``.
"""

import os
import sys
import time
from typing import Any

import httpx


def search(client: httpx.Client, sentence: str, k: int = 10, attempts: int = 5) -> list[dict[str, Any]]:
    """The hits, nearest first. A server that is busy says when to ask again."""
    for attempt in range(1, attempts + 1):
        answer = client.post("/v1/search", json={"queries": [sentence], "k": k})
        if answer.status_code not in (429, 503) or attempt == attempts:
            break
        time.sleep(float(answer.headers.get("Retry-After", attempt)))
    if answer.is_error:  # application/problem+json
        raise SystemExit(f"{answer.status_code}: {answer.json()['detail']}")
    hits: list[dict[str, Any]] = answer.json()["results"][0]["hits"]
    return hits


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(f'usage: {sys.argv[0]} URL "a sentence"')
    url, sentence = sys.argv[1:]
    token = os.environ.get("SPARSE_STS_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        for hit in search(client, sentence):
            print(f"{hit['cosine']:.4f}  {hit['id']}  {hit['text']}")  # noqa: T201
