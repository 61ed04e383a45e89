"""Where this process is in Kubernetes: what the kubelet tells a pod by environment and by files. Asks nobody."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from millrace.run.errors import WrongQuestion

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Pod:
    """`api`: URL of the cluster's API; `account`: the folder of the service account (token, ca.crt, namespace); `name`: of
    this pod, which is its host's name, too."""

    api: str
    account: Path
    namespace: str
    name: str

    def token(self) -> str:
        """Read each time: the kubelet writes a new one before it runs out."""
        return (self.account / "token").read_text("ascii").strip()

    @property
    def authority(self) -> Path:
        return self.account / "ca.crt"


def pod(account: Path = ACCOUNT, api: str | None = None, namespace: str | None = None) -> Pod:
    """The pod that this process runs in. `WrongQuestion`: it is in none, and `api` does not say where the cluster is."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if api is None and host is None:
        raise WrongQuestion(
            "This process is not in a pod of Kubernetes (KUBERNETES_SERVICE_HOST is not set), and nothing says where the "
            "cluster is: run it in the cluster (see deploy/kubernetes), or give `api` in [scaler.kubernetes], such as "
            "http://127.0.0.1:8001 of `kubectl proxy`."
        )
    found = account / "namespace"
    where = namespace or (found.read_text("utf-8").strip() if found.is_file() else "default")
    url = api or (f"https://[{host}]:{port}" if host and ":" in host else f"https://{host}:{port}")
    return Pod(url.rstrip("/"), account, where, platform.node())
