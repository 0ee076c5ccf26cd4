"""Certificates for the tests: `backtide cert` where it makes them, openssl where it should not (RSA, expired, other CAs)."""

import pathlib
import subprocess

import world


class Certs:
    """A folder with a private authority, ca.pem."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.cli("ca")

    def cli(self, what, *options):
        done = subprocess.run([world.BIN, "cert", what, "--dir", str(self.folder), *map(str, options)],
                              capture_output=True, text=True, timeout=60, env=world.environment())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def __getitem__(self, name):
        return str(self.folder / name)

    def openssl(self, *arguments):
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60,
                              cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def signed(self, name, kind="rsa:2048", use="serverAuth", subject="/CN=localhost", dates=()):
        """NAME.pem and NAME.key of this authority, by openssl; `dates` are options of `openssl ca`."""
        self.openssl("req", "-newkey", kind, *(["-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else []),
                     "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        (self.folder / "index").write_text("")
        (self.folder / f"{name}.cnf").write_text(
            "[ca]\ndefault_ca=own\n[own]\ndatabase=index\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\n"
            "default_days=30\npolicy=any\nunique_subject=no\n[any]\ncommonName=supplied\n[ext]\n"
            f"subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={use}\n")
        self.openssl("ca", "-batch", "-config", f"{name}.cnf", "-cert", "ca.pem", "-keyfile", "ca.key", "-in",
                     f"{name}.csr", "-out", f"{name}.pem", "-notext", "-extensions", "ext", *dates)

    def fingerprint(self, name):
        """As openssl prints it: upper-case hex with colons."""
        shown = self.openssl("x509", "-in", f"{name}.pem", "-noout", "-fingerprint", "-sha256")
        return shown.strip().partition("=")[2]
