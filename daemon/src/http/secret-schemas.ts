import { Type, type Static, type TUnsafe } from "@sinclair/typebox";
import type {
  AuthorityInfo,
  GrantRequest,
  InjectedHeader,
  SecretAuditEntry,
  SecretInfo,
  SecretList,
  SecretLocation,
  SecretRequest,
  SecretSigning,
} from "@squash/sdk/protocol";
import { secretBounds } from "../core/secrets/parse-secret.js";
import { secretLocations } from "../core/secrets/secret.js";
import { secretNamePattern } from "../core/secrets/secret-name.js";
import { closed, nullable, time, type Same } from "./schema-parts.js";

/** Names of secrets, or null for all. */
export const grantedNames = nullable(
  Type.Array(Type.String({ pattern: secretNamePattern }), {
    maxItems: secretBounds.count,
    description:
      "names of the secrets that it may use; null = all that there are, those included that come later; [] = none",
  }),
);

export const grantBody = Type.Object({ secrets: grantedNames }, { $id: "GrantRequest", ...closed });
true satisfies Same<Static<typeof grantBody>, GrantRequest>;

function oneOf<const T extends string>(values: readonly T[], description: string): TUnsafe<T> {
  return Type.Unsafe<T>({ type: "string", enum: [...values], description });
}

const location = Type.Unsafe<SecretLocation>({ type: "string", enum: [...secretLocations] });
const text = Type.String({ maxLength: secretBounds.text });
const elsewhere = oneOf(
  ["refuse", "pass"],
  "what becomes of a request with the placeholder that it may not go with: refused, or passed with the placeholder as it is",
);

const injectedHeader = Type.Object(
  {
    name: Type.String({ maxLength: 128 }),
    value: Type.String({
      maxLength: secretBounds.headerValue,
      description: "{placeholder} in it stands for the secret",
    }),
  },
  { ...closed, description: "sent in each request to its hosts, in place of what the client sends of that name" },
);
true satisfies Same<Static<typeof injectedHeader>, InjectedHeader>;

const signing = Type.Object(
  { secret_access_key: text, session_token: Type.Optional(nullable(text)) },
  {
    ...closed,
    description: "that it is an AWS access key id, by whose placeholder requests are signed; names of other secrets",
  },
);
true satisfies Same<Static<typeof signing>, SecretSigning>;

const hosts = Type.Array(Type.String({ maxLength: 300 }), {
  maxItems: secretBounds.hosts,
  description: "host names, or *.example.org for all below it; [] = it goes nowhere",
});
const paths = nullable(
  Type.Array(Type.String({ maxLength: secretBounds.pathLength }), {
    maxItems: secretBounds.paths,
    description: "prefixes, each up to a / or the end; null = all",
  }),
);
const methods = nullable(
  Type.Array(Type.String({ maxLength: 128 }), { maxItems: secretBounds.methods, description: "null = all" }),
);
const locations = Type.Array(location, {
  maxItems: secretLocations.length,
  description:
    "where its placeholder may stand; query is the path as well, basic the credentials of Authorization: Basic",
});

const oauth2Request = Type.Object(
  {
    token_url: Type.String({ maxLength: secretBounds.text, description: "https" }),
    client_id: text,
    client_secret: Type.Optional(nullable(text)),
    refresh_token: Type.Optional(nullable(text)),
    scope: Type.Optional(nullable(text)),
  },
  { ...closed, description: "that its value is a token which squashd gets and renews" },
);

export const secretBody = Type.Object(
  {
    value: Type.Optional(
      Type.String({
        maxLength: secretBounds.valueBytes.max,
        description: "4 to 65,536 bytes; absent with oauth2, and where that of a secret that there is stays",
      }),
    ),
    placeholder: Type.Optional(
      nullable(
        Type.String({
          maxLength: secretBounds.placeholder.max,
          description: "8 to 4,096 printable ASCII characters without spaces, quotes and backslashes; made when absent",
        }),
      ),
    ),
    allowed_hosts: hosts,
    allowed_paths: Type.Optional(paths),
    methods: Type.Optional(methods),
    locations: Type.Optional(locations),
    inject_header: Type.Optional(nullable(injectedHeader)),
    allow_plaintext: Type.Optional(Type.Boolean({ default: false, description: "whether it may also go without TLS" })),
    elsewhere: Type.Optional(elsewhere),
    sigv4: Type.Optional(nullable(signing)),
    oauth2: Type.Optional(nullable(oauth2Request)),
  },
  { $id: "SecretRequest", ...closed },
);
true satisfies Same<Static<typeof secretBody>, SecretRequest>;

const count = (description: string) => Type.Integer({ description });

export const secretInfo = Type.Object(
  {
    name: Type.String(),
    placeholder: Type.String({ description: "what sandboxes have in place of the value" }),
    allowed_hosts: hosts,
    allowed_paths: paths,
    methods,
    locations,
    inject_header: nullable(injectedHeader),
    allow_plaintext: Type.Boolean(),
    elsewhere,
    sigv4: nullable(signing),
    oauth2: nullable(
      Type.Object({
        token_url: Type.String(),
        client_id: Type.String(),
        grant: oneOf(["client_credentials", "refresh_token"], "how its token is got"),
        scope: nullable(Type.String()),
      }),
    ),
    uses: count("requests that it was sent with"),
    refusals: count("requests with its placeholder that were refused"),
    last_used: nullable(time("when it was sent last")),
  },
  { $id: "Secret" },
);
true satisfies Same<Static<typeof secretInfo>, SecretInfo>;

export const secretList = Type.Object(
  {
    secrets: Type.Array(Type.Unsafe<SecretInfo>(Type.Ref(secretInfo.$id ?? "")), { description: "by name" }),
    problem: nullable(
      Type.String({ description: "why the file cannot be used as it is; the secrets are those from before" }),
    ),
  },
  { $id: "SecretList" },
);
true satisfies Same<Static<typeof secretList>, SecretList>;

export const secretVerdicts: SecretAuditEntry["verdict"][] = ["allowed", "refused"];

export const secretAuditEntry = Type.Object(
  {
    time: time("when it was decided"),
    sandbox: Type.String(),
    secret: Type.String({ description: "its name" }),
    host: Type.String(),
    method: Type.String(),
    path: Type.String({ description: "of its query only names and placeholders" }),
    locations: Type.Array(location, { description: "where the placeholder stood" }),
    status: nullable(Type.Integer({ description: "of the answer" })),
    bytes: count("of the body that was sent"),
    verdict: oneOf(secretVerdicts, "whether the value was sent"),
    reason: nullable(Type.String({ description: "why it was refused" })),
  },
  { $id: "SecretAuditEntry" },
);
true satisfies Same<Static<typeof secretAuditEntry>, SecretAuditEntry>;

export const authorityInfo = Type.Object(
  {
    fingerprint: Type.String({ description: "SHA-256 of the certificate in DER, in hexadecimal digits" }),
    certificate_pem: Type.String(),
    not_after: time("until when it is good"),
  },
  { $id: "Authority" },
);
true satisfies Same<Static<typeof authorityInfo>, AuthorityInfo>;

export const secretSchemas = [secretBody, secretInfo, secretList, secretAuditEntry, grantBody, authorityInfo];
