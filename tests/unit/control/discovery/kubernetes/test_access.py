from __future__ import annotations

import base64
import ssl
from pathlib import Path

import pytest
import yaml

from lbproxy.control.discovery.kubernetes import access
from lbproxy.control.discovery.kubernetes.access import Access, NoAccess, in_cluster, outside, reader, tls_context
from tests.support.certificates import Authority

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_bytes(b"PEM")
    (tmp_path / "namespace").write_text("models")
    return tmp_path


def test_a_pod_has_a_service_account(account: Path) -> None:
    assert in_cluster(POD, account) == Access("https://10.96.0.1:443", "models", "first", b"PEM")
    (account / "token").write_text("second")
    assert in_cluster(POD, account).token == "second", "it is read each time"


def test_the_api_server_s_address_may_be_of_ipv6(account: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT_HTTPS": "6443"}
    assert in_cluster(environ, account).url == "https://[fd00::1]:6443"
    assert in_cluster({"KUBERNETES_SERVICE_HOST": "a"}, account).url == "https://a:443"


def test_a_pod_without_a_token_has_no_access(account: Path) -> None:
    (account / "token").write_text("")
    with pytest.raises(NoAccess, match="token is empty"):
        in_cluster(POD, account)
    (account / "token").unlink()
    with pytest.raises(FileNotFoundError):
        in_cluster(POD, account)


def test_files_have_a_bound(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_BYTES", 4)
    with pytest.raises(NoAccess, match="more than"):
        in_cluster(POD, account)


def test_a_token_is_text(account: Path) -> None:
    (account / "token").write_bytes(b"\xff")
    with pytest.raises(NoAccess, match="no ASCII text"):
        in_cluster(POD, account)


def test_secrets_are_not_shown() -> None:
    assert "s3cret" not in repr(Access("https://a", "b", "s3cret", key=b"s3cret"))


class Config:
    """A kubeconfig, of which a test changes parts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "config"
        self.context: dict[str, object] = {"cluster": "c", "user": "u", "namespace": "models"}
        self.cluster: dict[str, object] = {"server": "https://k8s.internal:6443/"}
        self.user: dict[str, object] = {"token": "t"}
        self.current: object = "main"

    def write(self) -> str:
        data = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": self.current,
            "contexts": [{"name": "other", "context": {}}, {"name": "main", "context": self.context}],
            "clusters": [{"name": "c", "cluster": self.cluster}],
            "users": [{"name": "u", "user": self.user}],
        }
        self.path.write_text(yaml.safe_dump(data))
        return str(self.path)

    def access(self, context: str | None = None) -> Access:
        return outside(self.write(), context)

    def refusal(self, context: str | None = None) -> str:
        with pytest.raises(NoAccess) as caught:
            self.access(context)
        return str(caught.value).removeprefix(f"{self.path}: ")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path)


def test_a_kubeconfig_with_a_token(config: Config) -> None:
    assert config.access() == Access("https://k8s.internal:6443", "models", "t")
    del config.context["namespace"]
    config.current = None
    config.cluster["tls-server-name"] = "kubernetes"
    assert config.access("main") == Access("https://k8s.internal:6443", "default", "t", server_name="kubernetes")


def test_data_and_files_beside_it(config: Config, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of the file\n")
    (tmp_path / "user.crt").write_bytes(b"cert")
    config.user = {
        "token": "t",
        "tokenFile": "token",
        "client-certificate": "user.crt",
        "client-key-data": base64.b64encode(b"key").decode(),
    }
    config.cluster["certificate-authority-data"] = base64.b64encode(b"ca").decode()
    made = config.access()
    assert (made.token, made.ca, made.cert, made.key) == ("of the file", b"ca", b"cert", b"key")


def test_what_is_run_or_weakens_is_refused(config: Config) -> None:
    for key in ("exec", "auth-provider", "username"):
        config.user = {key: "x"}
        assert config.refusal().startswith(f"user u has `{key}`, which lbproxy does not do; use a token")
    config.user = {}
    config.cluster["insecure-skip-tls-verify"] = True
    assert "has `insecure-skip-tls-verify`, which lbproxy does not do" in config.refusal()


def test_plain_text_is_for_this_machine_and_takes_no_token(config: Config) -> None:
    for host in ("127.0.0.1", "localhost", "[::1]"):
        config.cluster["server"] = f"http://{host}:8001"
        assert config.access().token == ""
    for url in ("http://k8s.internal", "ftp://127.0.0.1", "k8s.internal:6443", "http://[", "https://:443"):
        config.cluster["server"] = url
        assert url in config.refusal()


def test_what_is_missing_is_told(config: Config) -> None:
    assert config.refusal("nowhere") == "there is no context nowhere"
    assert config.refusal("other") == "context other has no cluster"
    config.current = None
    assert config.refusal() == "there is no current-context; say which with `context`"
    config.current = "main"
    config.user = {"client-certificate-data": base64.b64encode(b"c").decode()}
    assert config.refusal() == "user u has one of client-certificate and client-key, and both are needed"
    config.user = {"client-key-data": "?"}
    assert config.refusal() == "client-key-data is no base64"
    config.cluster = {}
    config.user = {}
    assert config.refusal() == "the cluster of context main has no server"


@pytest.mark.parametrize(
    ("text", "why"), [("a: [", ":1:5: "), ("- a", ": the file is no mapping"), ("[" * 500, "nested"), ("", "mapping")]
)
def test_what_is_no_kubeconfig(config: Config, text: str, why: str) -> None:
    config.path.write_text(text)
    with pytest.raises(NoAccess) as caught:
        outside(str(config.path), None)
    assert str(config.path) in str(caught.value) and why in str(caught.value)


def test_who_is_no_pod_has_a_kubeconfig(config: Config, tmp_path: Path) -> None:
    path = config.write()
    for environ in ({"KUBECONFIG": path}, {"KUBECONFIG": f"{path}:"}, {"HOME": str(tmp_path / "home")}):
        (tmp_path / "home" / ".kube").mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / ".kube" / "config").write_text(config.path.read_text())
        assert reader(None, None, environ)().token == "t"
    for named in (reader(path, None, POD), reader(None, None, {**POD, "KUBECONFIG": path})):
        assert named().token == "t", "one that is named counts in a pod, too"
    with pytest.raises(NoAccess, match="several files"):
        reader(None, None, {"KUBECONFIG": "/a:/b"})()
    with pytest.raises(NoAccess, match="this is no pod"):
        reader(None, None, {"HOME": str(tmp_path / "nowhere")})()
    with pytest.raises(FileNotFoundError, match="serviceaccount"):
        reader(None, None, POD)()


def test_certificates_are_used(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("client", "client")
    made = Access(
        "https://a",
        "n",
        ca=Path(authority.ca).read_bytes(),
        cert=Path(files.cert).read_bytes(),
        key=Path(files.key).read_bytes(),
    )
    context = tls_context(made)
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    assert len(context.get_ca_certs()) == 1, "and no other authority"
    with pytest.raises(NoAccess, match="the CA of the API server is no PEM certificate"):
        tls_context(Access("https://a", "n", ca=b"nonsense"))
    with pytest.raises(NoAccess, match="the client certificate or its key cannot be used"):
        tls_context(Access("https://a", "n", cert=b"nonsense", key=b"nonsense"))
