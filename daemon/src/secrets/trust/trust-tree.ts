import { X509Certificate } from "node:crypto";
import { posix } from "node:path";
import { rootCertificates } from "node:tls";
import { certificatePath, profilePath } from "../../core/secrets/environment.js";
import { certificatesIn, maxBundleBytes, withCertificate } from "./certificates.js";
import type { ImageAttributes, ImageDirectory, ImageNode } from "./erofs-image.js";
import { javaKeyStore, withTrusted } from "./java-key-store.js";
import { strange, type ModuleView, type Place } from "./module-view.js";

/** Where distributions keep the file with all certificates; the first that there is is what programs are pointed to. */
const bundlePaths = [
  "/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine
  "/etc/pki/tls/certs/ca-bundle.crt", // Fedora
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/ssl/ca-bundle.pem", // SUSE
  "/var/lib/ca-certificates/ca-bundle.pem",
  "/etc/ssl/cert.pem", // Alpine, and LibreSSL's programs
];
const usualBundle = "/etc/ssl/certs/ca-certificates.crt";
/** Where distributions keep the same for all their Java machines. */
const sharedJavaStores = [
  "/etc/ssl/certs/java/cacerts",
  "/etc/pki/ca-trust/extracted/java/cacerts",
  "/etc/pki/java/cacerts",
  "/var/lib/ca-certificates/java-cacerts",
];
const javaVersions = [8, 11, 17, 21, 25];
const javaHomes = [
  "/usr/lib/jvm/default-java",
  "/usr/lib/jvm/default-jvm",
  "/usr/lib/jvm/jre",
  "/opt/java/openjdk",
  "/opt/java/jre",
  ...javaVersions.flatMap((version) =>
    [`java-${version}-openjdk`, `java-${version}-openjdk-amd64`, `java-${version}-openjdk-arm64`].map(
      (name) => `/usr/lib/jvm/${name}`,
    ),
  ),
];
/** What commands call, by links as a rule, of a machine that may lie anywhere. */
const javaPrograms = ["/usr/bin/java", "/usr/local/bin/java"];
const maxTreeBytes = 16 * maxBundleBytes;

interface TreeWish {
  readonly certificatePem: string;
  readonly javaHome: string | null;
  readonly profile: (bundle: string) => string;
}

/** The files of an image of trust, and the bundle that programs are to be pointed to. */
export interface TrustTree {
  readonly root: ImageDirectory;
  readonly bundle: string;
}

/**
 * What lies above the modules of a stack so that programs in it trust one more certificate authority. Files that replace others have their
 * content and attributes; directories have the attributes that they have in the modules. Throws `module_invalid` for what cannot be such a file.
 */
export async function trustTree(view: ModuleView, wish: TreeWish): Promise<TrustTree> {
  const tree = await TreeBuilder.start(view);
  await tree.place(certificatePath, Buffer.from(`${wish.certificatePem.trimEnd()}\n`));
  let bundle: string | null = null;
  let content: Buffer | null = null;
  for (const path of bundlePaths) {
    const found = await extendBundle(view, tree, path, wish.certificatePem);
    if (found === null) continue;
    bundle ??= path;
    content ??= found;
  }
  if (bundle === null || content === null) {
    bundle = usualBundle;
    content = withCertificate(bundle, Buffer.from(`${rootCertificates.join("\n")}\n`), wish.certificatePem);
    await tree.place(bundle, content);
  }
  await trustJava(view, tree, { ...wish, bundle, content });
  // nobody reads it where there is no shell
  const shell = await view.resolve("/bin/sh");
  if (shell?.entry?.type === "file") await tree.place(profilePath, Buffer.from(wish.profile(bundle)));
  return { root: tree.root, bundle };
}

/** Returns the new content; null where the modules have no such file. */
async function extendBundle(
  view: ModuleView,
  tree: TreeBuilder,
  path: string,
  certificatePem: string,
): Promise<Buffer | null> {
  const place = await view.resolve(path);
  if (!place?.entry) return null;
  const content = withCertificate(path, await contentOf(view, path, place), certificatePem);
  await tree.replace(place, content);
  return content;
}

/** Where a Java machine is among the modules it reads a file of its own form, and no variable points it elsewhere without a word on its output. */
async function trustJava(
  view: ModuleView,
  tree: TreeBuilder,
  wish: TreeWish & { readonly bundle: string; readonly content: Buffer },
): Promise<void> {
  const named = wish.javaHome?.startsWith("/") === true ? [wish.javaHome] : [];
  const homes = [...named, ...(await calledJavaHomes(view)), ...javaHomes];
  const own = homes.flatMap((home) => [`${home}/lib/security/cacerts`, `${home}/jre/lib/security/cacerts`]);
  const certificate = new X509Certificate(wish.certificatePem).raw;
  let made: Buffer | null = null; // of the bundle
  for (const path of [...sharedJavaStores, ...own]) {
    const place = await view.resolve(path);
    // a link to nothing is how a distribution leaves it that has not made the store yet
    if (place === null || (place.entry === null && !place.byLink) || tree.has(place.path)) continue;
    const store = place.entry === null ? Buffer.alloc(0) : await contentOf(view, path, place);
    const extended = withTrusted(store, "squash-proxy", certificate);
    made ??= extended === null ? javaKeyStore(await certificatesIn(wish.bundle, wish.content)) : null;
    await tree.replace(place, extended ?? made ?? store);
  }
}

/** Homes of the machines whose `bin/java` a command finds. */
async function calledJavaHomes(view: ModuleView): Promise<string[]> {
  const homes: string[] = [];
  for (const path of javaPrograms) {
    const place = await view.resolve(path);
    if (place?.entry?.type === "file") homes.push(`/${place.path.slice(0, -2).join("/")}`);
  }
  return homes;
}

async function contentOf(view: ModuleView, path: string, place: Place): Promise<Buffer> {
  if (place.entry?.type !== "file") throw strange(path, `no file but a ${place.entry?.type ?? "link to nothing"}`);
  if (place.entry.size > maxBundleBytes) throw strange(path, `${place.entry.size} bytes, more than ${maxBundleBytes}`);
  const read = await view.read(place.path);
  if (read?.content?.length !== place.entry.size) throw strange(path, "a content that cannot be read");
  return read.content;
}

/** Puts files into a tree, with the directories that they need. */
class TreeBuilder {
  readonly root: ImageDirectory;
  readonly #view: ModuleView;
  #left = maxTreeBytes;

  private constructor(view: ModuleView, attributes: ImageAttributes) {
    this.#view = view;
    this.root = { kind: "directory", attributes, children: new Map() };
  }

  static async start(view: ModuleView): Promise<TreeBuilder> {
    return new TreeBuilder(view, (await view.entry([]))?.attributes ?? plain(0o755, 0));
  }

  has(path: readonly string[]): boolean {
    let node: ImageNode | undefined = this.root;
    for (const name of path) node = node?.kind === "directory" ? node.children.get(name) : undefined;
    return node !== undefined;
  }

  /** A file of its own, in place of whatever the modules have of that name; links lead to its directory only. */
  async place(path: string, content: Buffer): Promise<void> {
    const parent = await this.#view.resolve(posix.dirname(path));
    if (parent === null || (parent.entry !== null && parent.entry.type !== "directory"))
      throw strange(posix.dirname(path), "no directory");
    const directory = await this.#directory(parent.path);
    this.#put(directory, posix.basename(path), content, plain(0o644, directory.attributes.mtimeS));
  }

  /** A file in place of one that was found, or of nothing at the end of a link. */
  async replace({ path, entry }: Place, content: Buffer): Promise<void> {
    const directory = await this.#directory(path.slice(0, -1));
    const attributes = entry?.attributes ?? plain(0o644, directory.attributes.mtimeS);
    this.#put(directory, path.at(-1) ?? "", content, attributes);
  }

  #put(directory: ImageDirectory, name: string, content: Buffer, attributes: ImageAttributes): void {
    this.#left -= content.length;
    if (this.#left < 0) throw strange(name, "too large a content, with the others together");
    directory.children.set(name, { kind: "file", attributes, content });
  }

  async #directory(path: readonly string[]): Promise<ImageDirectory> {
    let directory = this.root;
    for (const [index, name] of path.entries()) {
      const known = directory.children.get(name);
      if (known?.kind === "file") throw strange(path.join("/"), "a file where a directory is needed");
      const entry = known === undefined ? await this.#view.entry(path.slice(0, index + 1)) : null;
      const attributes = entry?.attributes ?? plain(0o755, directory.attributes.mtimeS);
      const next = known ?? { kind: "directory", attributes, children: new Map<string, ImageNode>() };
      directory.children.set(name, next);
      directory = next;
    }
    return directory;
  }
}

function plain(mode: number, mtimeS: number): ImageAttributes {
  return { mode, uid: 0, gid: 0, mtimeS, xattrs: new Map() };
}
