import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import type { OAuth2Grant } from "../../../core/secrets/secret.js";
import { SecretSet } from "../secret-set.js";
import { headOf, secretOf } from "../testing/secrets.js";
import type { PostForm } from "./token-request.js";
import { TokenSources } from "./token-sources.js";

const grant: OAuth2Grant = {
  tokenUrl: "https://id.example.com/token",
  clientId: "the client",
  clientSecret: "client:secret",
  refreshToken: null,
  scope: "read write",
};
const secretWith = (oauth2: OAuth2Grant) => secretOf({ name: "T", placeholder: "ph-abcdefgh", value: "", oauth2 });

type Answer = { status?: number; body: unknown } | Error;
interface Call {
  readonly url: string;
  readonly form: Record<string, string>;
  readonly headers: Readonly<Record<string, string>>;
}

/** A token server of which the answers are told ahead; the last one is given again and again. */
function bed(oauth2: OAuth2Grant, answers: Answer[]) {
  const calls: Call[] = [];
  const rotated: string[] = [];
  const clock = { now: 1_000_000 };
  const post: PostForm = async (url, form, { headers }) => {
    calls.push({ url, form: Object.fromEntries(new URLSearchParams(form)), headers });
    await sleep(1);
    const answer = answers[Math.min(calls.length, answers.length) - 1]!;
    if (answer instanceof Error) throw answer;
    return {
      status: answer.status ?? 200,
      body: typeof answer.body === "string" ? answer.body : JSON.stringify(answer.body),
    };
  };
  const sources = new TokenSources({
    post,
    now: () => clock.now,
    rotated: ({ secret, before, after }) => rotated.push(`${secret} ${before} ${after}`),
  });
  sources.set([secretWith(oauth2)]);
  return { calls, clock, rotated, sources };
}

const first = { body: { access_token: "token-1", token_type: "Bearer", expires_in: 3600 } };
const second = { body: { access_token: "token-2", expires_in: "3600" } };

describe("TokenSources", () => {
  it("gets a token by the client's credentials, and once for all who wait", async () => {
    const { sources, calls } = bed(grant, [first]);
    expect(sources.current("T")).toBeNull();
    await Promise.all([sources.fetch("T"), sources.fetch("T"), sources.fetch("T")]);
    expect(sources.current("T")).toBe("token-1");
    expect(calls).toEqual([
      {
        url: "https://id.example.com/token",
        form: { grant_type: "client_credentials", scope: "read write" },
        headers: {
          Accept: "application/json",
          Authorization: `Basic ${Buffer.from("the+client:client%3Asecret").toString("base64")}`,
          "Content-Type": "application/x-www-form-urlencoded",
        },
      },
    ]);
  });

  it("names the client in the form where the server takes it nowhere else, and where it has no secret", async () => {
    const { sources, calls } = bed(grant, [{ status: 401, body: { error: "invalid_client" } }, first, second]);
    await sources.fetch("T");
    expect(calls[1]).toMatchObject({ form: { client_id: "the client", client_secret: "client:secret" } });
    await sources.fetch("T");
    expect(calls[2]!.headers["Authorization"]).toBeUndefined();
    const open = bed({ ...grant, clientSecret: null }, [first]);
    await open.sources.fetch("T");
    expect(open.calls[0]).toMatchObject({ form: { client_id: "the client" } });
    expect(open.calls[0]!.headers["Authorization"]).toBeUndefined();
  });

  it("gets another token ahead of the end of one, which is used up to then and no longer", async () => {
    const { sources, calls, clock } = bed(grant, [first, second]);
    await sources.fetch("T");
    clock.now += 3_500_000;
    expect([sources.current("T"), calls.length]).toEqual(["token-1", 1]);
    clock.now += 50_000;
    expect([sources.current("T"), sources.current("T"), calls.length]).toEqual(["token-1", "token-1", 2]);
    await expect.poll(() => sources.current("T")).toBe("token-2");
    expect(sources.known("T")).toEqual(["token-2", "token-1"]);
    clock.now += 3_600_000;
    expect(sources.current("T")).toBeNull();
  });

  it("uses and tells the refresh token that takes the place of the one before", async () => {
    const rotating = { body: { access_token: "token-1", refresh_token: "refresh-2" } };
    const { sources, calls, rotated } = bed({ ...grant, refreshToken: "refresh-1" }, [rotating, second]);
    await sources.fetch("T");
    await sources.fetch("T");
    expect(calls.map(({ form }) => form["refresh_token"])).toEqual(["refresh-1", "refresh-2"]);
    expect(rotated).toEqual(["T refresh-1 refresh-2"]);
    // the store gives back what it was told
    sources.set([secretWith({ ...grant, refreshToken: "refresh-2" })]);
    expect(sources.current("T")).toBe("token-2");
    sources.set([secretWith({ ...grant, refreshToken: "another" })]);
    expect(sources.current("T")).toBeNull();
  });

  it.each([
    [{ status: 400, body: { error: "invalid_grant", error_description: "secret text" } }, /answered 400 \(invalid_grant\); its refresh token is worth nothing/],
    [{ status: 401, body: { error: "invalid_client" } }, /set the secret with the right client id and client secret/],
    [{ status: 500, body: "<html>secret text" }, /the token server answered 500; try again later/],
    [{ status: 400, body: { error: "Secret text!" } }, /answered 400; /],
    [{ body: {} }, /no access token in it/],
    [{ body: { access_token: "a\r\nX: y" } }, /no access token in it/],
    [{ body: { access_token: "a", token_type: "mac" } }, /another type than bearer/],
    [new Error("connect ECONNREFUSED secret text"), /cannot be reached/],
  ] as [Answer, RegExp][])("says what is wrong, and nothing that a server wrote: %j", async (answer, message) => {
    const { sources } = bed({ ...grant, refreshToken: "refresh-1" }, [answer]);
    const error = await sources.fetch("T").catch((reason: Error) => reason);
    expect(error).toMatchObject({ name: "SecretRefusal", secret: "T", where: "token", message });
    expect(String(error)).not.toMatch(/secret text|refresh-1|client:secret/i);
  }); // prettier-ignore

  it("leaves the server alone for a while after a failure", async () => {
    const { sources, calls, clock } = bed(grant, [{ status: 500, body: "" }, first]);
    await expect(sources.fetch("T")).rejects.toThrow();
    await expect(sources.fetch("T")).rejects.toThrow();
    expect(calls).toHaveLength(1);
    clock.now += 5_001;
    await sources.fetch("T");
    expect(sources.current("T")).toBe("token-1");
  });

  it("asks once for all requests that were refused with one token", async () => {
    const { sources, calls } = bed(grant, [first, second, second]);
    await sources.fetch("T");
    expect(await Promise.all([sources.renew("T", "token-1"), sources.renew("T", "token-1")])).toEqual([true, true]);
    expect(await sources.renew("T", "token-1")).toBe(true);
    expect(calls).toHaveLength(2);
    // the server gives the same one again
    expect(await sources.renew("T", "token-2")).toBe(false);
  });
});

describe("A secret that is a token", () => {
  it("is put in once it is there, and kept out of answers, also the one before it", async () => {
    const { sources, calls } = bed(grant, [first, second]);
    const set = SecretSet.compile([secretWith(grant)], sources);
    const head = headOf({ headers: [["Authorization", "Bearer ph-abcdefgh"]] });
    expect(set.ready(headOf({ host: "example.org", headers: head.headers }))).toBeNull();
    expect(set.ready(headOf())).toBeNull();
    expect(() => set.request(head)).toThrow(/no access token/);
    await set.ready(head);
    expect(set.ready(head)).toBeNull();
    const request = set.request(head);
    expect((await request.send(null)).headers).toEqual([["Authorization", "Bearer token-1"]]);
    expect(await request.renew()).toBe(true);
    const again = set.request(head);
    expect((await again.send(null)).headers).toEqual([["Authorization", "Bearer token-2"]]);
    expect(again.answer.text("token-1 token-2")).toBe("ph-abcdefgh ph-abcdefgh");
    expect(calls).toHaveLength(2);
    expect(await set.request(headOf()).renew()).toBe(false);
  });
});
