import { SquashError } from "@squash/sdk/errors";

const host = "(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\\[[0-9a-fA-F:]+\\])(?::[0-9]{1,5})?";
const part = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
const pattern = new RegExp(
  `^(?:(${host})/)?(${part}(?:/${part})*)(?::([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?$`,
);
const hubHost = "registry-1.docker.io";

/** Where an image lies. */
export interface Reference {
  /** host and port as they are asked */
  readonly registry: string;
  readonly repository: string;
  /** null where only a digest is given */
  readonly tag: string | null;
  /** `sha256:` and 64 hexadecimal digits; wins over the tag */
  readonly digest: string | null;
}

/**
 * Reads `[registry[:port]/]repository[:tag][@digest]` with docker's defaults: Docker Hub, where names of one part lie in `library`, and the
 * tag `latest`. Throws `invalid_request`. Source: distribution/reference.
 */
export function parseReference(text: string): Reference {
  const first = text.slice(0, Math.max(0, text.indexOf("/")));
  // docker takes what is before the first slash for a host only when it looks like one
  const isHost = /[.:A-Z]/.test(first) || first === "localhost";
  const match = pattern.exec(isHost ? text : `docker.io/${text}`);
  const [, registry = "", repository = "", tag = null, digest = null] = match ?? [];
  if (match === null || repository.length > 255 || !isPort(registry)) {
    throw new SquashError(
      "invalid_request",
      `Cannot read the image reference ${JSON.stringify(text.slice(0, 300))}: needed is [registry[:port]/]repository[:tag][@sha256:digest]`,
    );
  }
  const isHub = ["docker.io", "index.docker.io", hubHost].includes(registry);
  return {
    registry: isHub ? hubHost : registry,
    repository: isHub && !repository.includes("/") ? `library/${repository}` : repository,
    tag: tag ?? (digest === null ? "latest" : null),
    digest,
  };
}

/** A name for what comes of an image: the end of its repository, and its tag or the begin of its digest. */
export function imageName({ repository, tag, digest }: Pick<Reference, "repository" | "tag" | "digest">): string {
  const base = repository.slice(repository.lastIndexOf("/") + 1);
  return `${base}-${tag ?? digest?.slice("sha256:".length, "sha256:".length + 12) ?? "latest"}`.slice(0, 110);
}

function isPort(registry: string): boolean {
  const port = /:(\d+)$/.exec(registry.replace(/^\[.*\]/, ""))?.[1];
  return port === undefined || (Number(port) > 0 && Number(port) <= 65_535);
}
