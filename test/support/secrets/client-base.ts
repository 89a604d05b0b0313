import { execFileSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { librariesOf, takePrograms } from "../programs.js";
import { repositoryRoot } from "../root.js";
import { factsOf, keptImage, placeModule } from "./kept-image.js";

/** The base of clients: BusyBox, and this machine's curl, git, wget, openssl, apt, Python with `requests`, and Node. */
export const clientBase = "000-base-clients";

const inside = join(repositoryRoot, "test/support/secrets/inside");
const busybox = "/bin/busybox";
const programs = [
  "curl",
  "git",
  "wget",
  "openssl",
  "apt-get",
  "dpkg",
  "dpkg-deb",
  "dpkg-split",
  "dpkg-query",
  "tar",
  "bash",
].map((name) => `/usr/bin/${name}`);
const helpers = [
  "/usr/lib/git-core/git-remote-https",
  ...["http", "https", "store"].map((name) => `/usr/lib/apt/methods/${name}`),
];
/** JavaScript packages that clients are made of */
const packages = ["ws", "aws4"];
const python = "/usr/bin/python3";
/** asked of Python, since distributions keep them in different places */
const pythonFolders = `
import certifi, chardet, idna, requests, sysconfig, urllib3, os
paths = sysconfig.get_paths()
print("\\n".join([paths["stdlib"]] + [os.path.dirname(each.__file__) for each in (certifi, chardet, idna, requests, urllib3)]))
try:
  import six
  print(six.__file__)
except ImportError:
  pass
`;
const leftOutOfPython =
  /\/(test|idlelib|lib2to3|tkinter|turtledemo|ensurepip|pydoc_data|config-[^/]*|distutils|unittest)$/;

/** Puts the base into a folder of modules. `authority` (PEM) is in its bundle, beside the machine's own. */
export function ensureClientBase(folder: string, authority: string): void {
  const parts = [...programs, ...helpers, process.execPath, realpathSync(python)].map(factsOf);
  const versions = packages.map((name) => readFileSync(join(repositoryRoot, "node_modules", name, "package.json")));
  const clients = execFileSync("tar", ["-c", "--mtime=@0", "--sort=name", "-C", inside, "."]);
  const madeOf = [authority, readFileSync(import.meta.filename), ...parts, ...versions, clients];
  placeModule(
    folder,
    clientBase,
    keptImage(madeOf, (root) => fill(root, authority)),
  );
}

function fill(root: string, authority: string): void {
  const folders = [
    "bin",
    "etc/ssl/certs",
    "etc/profile.d",
    "root",
    "tmp",
    "proc",
    "sys",
    "dev",
    "run",
    "usr/bin",
    "var/tmp",
  ];
  for (const path of folders) mkdirSync(join(root, path), { recursive: true });
  chmodSync(join(root, "tmp"), 0o1777);
  chmodSync(root, 0o755);
  copyFileSync(busybox, join(root, "bin/busybox"));
  chmodSync(join(root, "bin/busybox"), 0o755);
  const own = ["busybox", "bash", ...programs.map((path) => path.slice("/usr/bin/".length))];
  for (const applet of execFileSync(busybox, ["--list"], { encoding: "utf8" }).trim().split("\n"))
    if (!own.includes(applet)) symlinkSync("busybox", join(root, "bin", applet));
  writeFileSync(join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n");
  writeFileSync(join(root, "etc/group"), "root:x:0:\nuser:x:1000:\n");
  writeFileSync(join(root, "etc/nsswitch.conf"), "hosts: files dns\n");
  const bundle = "etc/ssl/certs/ca-certificates.crt";
  writeFileSync(join(root, bundle), readFileSync(`/${bundle}`, "utf8") + authority);
  // where openssl looks for it by itself
  mkdirSync(join(root, "usr/lib/ssl"), { recursive: true });
  symlinkSync("/etc/ssl/certs", join(root, "usr/lib/ssl/certs"));
  symlinkSync("/etc/ssl/certs/ca-certificates.crt", join(root, "usr/lib/ssl/cert.pem"));
  takePrograms(root, [...programs, ...helpers, ...nameServices()]);
  takePrograms(root, [process.execPath], "usr/bin/node");
  symlinkSync("git-remote-https", join(root, "usr/lib/git-core/git-remote-http"));
  takePython(root);
  fillApt(root);
  cpSync(inside, join(root, "opt/clients"), { recursive: true });
  for (const name of packages)
    cpSync(join(repositoryRoot, "node_modules", name), join(root, "opt/clients/node_modules", name), {
      recursive: true,
    });
}

function takePython(root: string): void {
  const [stdlib = "", ...more] = execFileSync(python, ["-c", pythonFolders], { encoding: "utf8" }).trim().split("\n");
  for (const path of [stdlib, ...more])
    cpSync(path, join(root, path), {
      recursive: true,
      dereference: true,
      filter: (from) => !leftOutOfPython.test(from) && !from.endsWith("__pycache__"),
    });
  takePrograms(root, [realpathSync(python)]);
  symlinkSync(realpathSync(python), join(root, "usr/bin/python3"));
  const modules = execFileSync("find", [join(stdlib, "lib-dynload"), "-name", "*.so"], { encoding: "utf8" });
  takePrograms(root, modules.trim().split("\n"));
}

function fillApt(root: string): void {
  const folders = [
    "lib/dpkg/info",
    "lib/dpkg/updates",
    "lib/apt/lists/partial",
    "cache/apt/archives/partial",
    "log/apt",
  ];
  for (const path of folders) mkdirSync(join(root, "var", path), { recursive: true });
  for (const path of ["apt.conf.d", "auth.conf.d", "sources.list.d", "preferences.d", "trusted.gpg.d"])
    mkdirSync(join(root, "etc/apt", path), { recursive: true });
  cpSync("/usr/share/dpkg", join(root, "usr/share/dpkg"), { recursive: true });
  writeFileSync(join(root, "var/lib/dpkg/status"), "");
  for (const applet of ["ldconfig", "start-stop-daemon"])
    if (!existsSync(join(root, "bin", applet))) symlinkSync("true", join(root, "bin", applet));
  // as root inside it could not become the user that it would like to be
  writeFileSync(join(root, "etc/apt/apt.conf.d/10test"), 'APT::Sandbox::User "root";\n');
}

/** Which the C library opens by itself to find names. */
function nameServices(): string[] {
  const libc = librariesOf(["/usr/bin/curl"]).find((path) => path.includes("libc.so")) ?? "";
  return ["libnss_files.so.2", "libnss_dns.so.2"]
    .map((name) => join(dirname(libc), name))
    .filter((path) => existsSync(path));
}
