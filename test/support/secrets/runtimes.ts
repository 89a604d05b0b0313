import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { librariesOf, takePrograms } from "../programs.js";
import { repositoryRoot } from "../root.js";
import { factsOf, keptImage, placeModule } from "./kept-image.js";

/** Modules of runtimes, each with a client that it runs; to be stacked on the base of clients. */
export const runtimeModules = {
  /** a static program of Go */
  go: "100-go",
  /** this machine's Java, as Debian's package has it without `ca-certificates-java`: its store is a link to nothing */
  java: "100-java",
  /** what `ca-certificates-java` adds to that */
  javaStore: "101-java-store",
  /** a store of its own in PKCS12, as machines have it that are not Debian's */
  javaPkcs12: "101-java-pkcs12",
} as const;

export const goClient = "/opt/go/client";
/** where the client's class is */
export const javaClasses = "/opt/java";
/** a copy of Debian's store, beside the class */
export const packagedStore = `${javaClasses}/cacerts`;

const sources = join(repositoryRoot, "test/support/secrets/runtimes");
const debianStore = "/etc/ssl/certs/java/cacerts";
/** what compilers, debuggers and readers want */
const leftOutOfJava = /\/(jmods|include|legal|man|demo|docs|lib\/(src\.zip|ct\.sym))$/;
const own = readFileSync(import.meta.filename);

/** Puts the modules into a folder, for a machine that has `go`, `java` and `ecj`. */
export function ensureRuntimes(folder: string): void {
  const { go, java, javaStore, javaPkcs12 } = runtimeModules;
  placeModule(folder, go, goImage());
  const home = javaHome();
  placeModule(folder, java, javaImage(home));
  placeModule(folder, javaStore, keptImage([own, factsOf(debianStore)], takeStore));
  placeModule(
    folder,
    javaPkcs12,
    keptImage([own, home, factsOf(debianStore)], (root) => makePkcs12(root, home)),
  );
}

function goImage(): string {
  const source = join(sources, "client.go");
  const version = execFileSync("go", ["version"], { encoding: "utf8" });
  return keptImage([own, version, readFileSync(source)], (root) => {
    const cache = mkdtempSync(join(tmpdir(), "sqt-go-"));
    try {
      execFileSync("go", ["build", "-trimpath", "-o", join(root, goClient), source], {
        env: {
          PATH: process.env["PATH"],
          CGO_ENABLED: "0",
          GO111MODULE: "off",
          GOTOOLCHAIN: "local",
          GOFLAGS: "",
          GOPATH: join(cache, "path"),
          GOCACHE: join(cache, "cache"),
        },
        stdio: ["ignore", "ignore", "inherit"],
      });
    } finally {
      rmSync(cache, { recursive: true });
    }
  });
}

/** Home of the Java that `java` is. */
const javaHome = (): string => dirname(dirname(realpathSync("/usr/bin/java")));

function javaImage(home: string): string {
  const source = join(sources, "Client.java");
  return keptImage([own, factsOf(join(home, "lib/modules")), factsOf(debianStore), readFileSync(source)], (root) => {
    takeJava(root, home);
    const settings = join("/etc", basename(home).replace(/-(amd64|arm64)$/, "")); // where Debian's links lead
    if (existsSync(settings)) cpSync(settings, join(root, settings), { recursive: true, verbatimSymlinks: true });
    mkdirSync(join(root, "etc/alternatives"), { recursive: true });
    mkdirSync(join(root, "usr/bin"), { recursive: true });
    symlinkSync("/etc/alternatives/java", join(root, "usr/bin/java"));
    symlinkSync(join(home, "bin/java"), join(root, "etc/alternatives/java"));
    mkdirSync(join(root, javaClasses), { recursive: true });
    cpSync(debianStore, join(root, packagedStore));
    execFileSync("ecj", ["-17", "-proc:none", "-d", join(root, javaClasses), source], {
      stdio: ["ignore", "inherit", "inherit"],
    });
  });
}

function takeJava(root: string, home: string): void {
  const filter = (from: string): boolean => !leftOutOfJava.test(from);
  cpSync(home, join(root, home), { recursive: true, verbatimSymlinks: true, filter });
  const libraries = ["libjava", "libnet", "libnio", "libzip", "libjli", "libjimage", "libextnet", "server/libjvm"]
    .map((name) => join(home, "lib", `${name}.so`))
    .filter((path) => existsSync(path));
  takePrograms(root, librariesOf([join(home, "bin/java"), ...libraries]));
}

function takeStore(root: string): void {
  mkdirSync(join(root, dirname(debianStore)), { recursive: true });
  cpSync(debianStore, join(root, debianStore));
}

function makePkcs12(root: string, home: string): void {
  const store = join(root, home, "lib/security/cacerts");
  mkdirSync(dirname(store), { recursive: true });
  const from = ["-srckeystore", debianStore, "-srcstorepass", "changeit"];
  const into = ["-destkeystore", store, "-deststoretype", "PKCS12", "-deststorepass", "changeit"];
  execFileSync(join(home, "bin/keytool"), ["-importkeystore", "-noprompt", ...from, ...into], { stdio: "ignore" });
}
