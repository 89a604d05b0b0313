import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { X509Certificate } from "node:crypto";
import { repositoryRoot } from "../root.js";

/** A certificate and its key, in PEM. */
export interface KeyPair {
  readonly key: string;
  readonly cert: string;
}

/** What a server's certificate is to be like. */
export interface LeafRequest {
  /** host names, also with a wildcard */
  readonly names: readonly string[];
  /** whether its time is over */
  readonly expired?: boolean;
  /** whether it is its own authority, which nobody knows */
  readonly selfSigned?: boolean;
}

const cache = join(repositoryRoot, "build/test-authority");
const dayMs = 86_400_000;
const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
const settings = `
[ca]
default_ca = all
[all]
database = index.txt
new_certs_dir = .
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
copy_extensions = copy
[any]
commonName = supplied
`;

/** The authority of the tests' servers, made once for a checkout, since an image holds its certificate. Its file is what squashd may be told of. */
export function testAuthority(): KeyPair & { readonly file: string } {
  const [keyFile, file] = [join(cache, "ca.key"), join(cache, "ca.crt")];
  if (!existsSync(file) || Date.parse(new X509Certificate(readFileSync(file)).validTo) < Date.now() + 30 * dayMs) {
    rmSync(cache, { recursive: true, force: true });
    const draft = `${cache}.draft-${process.pid}`;
    mkdirSync(draft, { recursive: true });
    const subject = ["-days", "3650", "-subj", "/CN=authority of the tests"];
    openssl(draft, ["req", "-x509", ...newKey, ...subject, "-keyout", "ca.key", "-out", "ca.crt"]);
    renameSync(draft, cache);
  }
  return { key: readFileSync(keyFile, "utf8"), cert: readFileSync(file, "utf8"), file };
}

/** Issues a certificate, which is valid for a day unless it is expired. */
export function issue({ names, expired = false, selfSigned = false }: LeafRequest): KeyPair {
  const authority = testAuthority();
  const folder = mkdtempSync(join(tmpdir(), "sqt-leaf-"));
  try {
    const subject = [
      "-subj",
      "/CN=server of the tests",
      "-addext",
      `subjectAltName=${names.map((name) => `DNS:${name}`).join()}`,
    ];
    if (selfSigned)
      openssl(folder, ["req", "-x509", ...newKey, ...subject, "-days", "1", "-keyout", "key", "-out", "cert"]);
    else {
      writeFileSync(join(folder, "settings"), settings);
      writeFileSync(join(folder, "index.txt"), "");
      writeFileSync(join(folder, "ca.key"), authority.key, { mode: 0o600 });
      openssl(folder, ["req", ...newKey, ...subject, "-keyout", "key", "-out", "request"]);
      const [from, to] = expired ? [-3, -1] : [-1, 1];
      const times = ["-startdate", timeText(from), "-enddate", timeText(to)];
      const ca = ["-config", "settings", "-cert", authority.file, "-keyfile", "ca.key", "-batch", "-notext"];
      openssl(folder, ["ca", ...ca, ...times, "-in", "request", "-out", "cert"]);
    }
    return { key: readFileSync(join(folder, "key"), "utf8"), cert: readFileSync(join(folder, "cert"), "utf8") };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** As openssl wants it, so many days from now. */
function timeText(days: number): string {
  return `${new Date(Date.now() + days * dayMs).toISOString().replaceAll(/[-:T]|\..*/g, "")}Z`;
}

function openssl(cwd: string, args: readonly string[]): void {
  execFileSync("openssl", args, { cwd, stdio: "ignore" });
}
