"""client.py urllib|requests URL TOKEN: asks with a bearer token, and prints the status and what came."""
import sys

way, url, token = sys.argv[1:4]
headers = {"Authorization": "Bearer " + token}
if way == "urllib":
    import urllib.request

    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        print(answer.status, answer.read().decode())
else:
    import requests

    answer = requests.get(url, headers=headers, timeout=10)
    print(answer.status_code, answer.text)
