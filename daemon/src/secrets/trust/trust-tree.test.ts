import { X509Certificate } from "node:crypto";
import { rootCertificates } from "node:tls";
import { describe, expect, it } from "vitest";
import type { ImageNode } from "./erofs-image.js";
import { javaKeyStore, withTrusted } from "./java-key-store.js";
import { ModuleView, type ViewEntry } from "./module-view.js";
import { trustTree } from "./trust-tree.js";

const attributes = { mode: 0o644, uid: 0, gid: 0, mtimeS: 0, xattrs: new Map() };
const own = rootCertificates[0]!;
const store = javaKeyStore([new X509Certificate(rootCertificates[1]!).raw]);
const extended = withTrusted(store, "squash-proxy", new X509Certificate(own).raw)!;

/** Modules with these files, and links where a text begins with "-> ". */
function viewOf(files: Readonly<Record<string, string | Buffer>>): ModuleView {
  return new ModuleView((path, { withContent }) => {
    const file = files[`/${path}`];
    const isFolder = path === "" || Object.keys(files).some((name) => name.startsWith(`/${path}/`));
    if (file === undefined && !isFolder) return Promise.resolve(null);
    const target = typeof file === "string" && file.startsWith("-> ") ? file.slice(3) : "";
    const content = Buffer.from(file ?? "");
    const type = file === undefined ? "directory" : target === "" ? "file" : "symlink";
    return Promise.resolve<ViewEntry>({
      ...{ type, attributes, target, size: content.length },
      content: withContent ? content : null,
    });
  });
}

/** What lies at a path of the tree that is made for modules; null for nothing. */
async function laid(path: string, files: Readonly<Record<string, string | Buffer>>): Promise<Buffer | null> {
  const { root } = await trustTree(viewOf(files), { certificatePem: own, javaHome: null, profile: () => "" });
  let node: ImageNode | undefined = root;
  for (const name of path.slice(1).split("/")) node = node?.kind === "directory" ? node.children.get(name) : undefined;
  return node?.kind === "file" ? node.content : null;
}

describe("a Java machine that is in no usual place", () => {
  const cacerts = "/srv/vendor/jdk-99/lib/security/cacerts";
  const machine = { "/srv/vendor/jdk-99/bin/java": "a program", [cacerts]: store };

  it.each(["/usr/bin/java", "/usr/local/bin/java"])("has its store extended where %s leads to it", async (program) => {
    const links = {
      [program]: "-> /etc/alternatives/java",
      "/etc/alternatives/java": "-> /srv/vendor/jdk-99/bin/java",
    };
    expect(await laid(cacerts, { ...machine, ...links })).toEqual(extended);
    expect(await laid(cacerts, machine)).toBeNull();
  });

  it("of version 8 has its store extended, which lies below another folder", async () => {
    const files = { "/opt/j8/jre/bin/java": "a program", "/opt/j8/jre/lib/security/cacerts": store };
    const links = { "/usr/bin/java": "-> ../../opt/j8/jre/bin/java" };
    expect(await laid("/opt/j8/jre/lib/security/cacerts", { ...files, ...links })).toEqual(extended);
  });

  it("leaves modules as they are where java leads to nothing, or is the program itself", async () => {
    expect(await laid(cacerts, { ...machine, "/usr/bin/java": "-> /etc/alternatives/java" })).toBeNull();
    expect(await laid(cacerts, { ...machine, "/usr/bin/java": "a script" })).toBeNull();
  });
});
