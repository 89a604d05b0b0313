import { describe, expect, it } from "vitest";

import { printableJson, printableLine, printableText } from "./terminal-text.js";

const attack = "a\u001b]0;title\u0007\u001b[31mb\u009b2Jc\r\nd\te\u007f\u202ef\u200bg\u0000";

describe("printableLine()", () => {
  it("makes one line without control characters", () => {
    expect(printableLine(attack)).toBe("a]0;title[31mb2Jc d efg");
  });

  it("leaves ordinary text of any script as it is", () => {
    expect(printableLine("Grüße, 世界 🙂 — ok")).toBe("Grüße, 世界 🙂 — ok");
  });

  it("removes every C0 and C1 control character", () => {
    const controls = Array.from({ length: 0xa0 }, (_, code) => String.fromCharCode(code)).filter((c) =>
      /\p{Cc}/u.test(c),
    );
    expect(controls).toHaveLength(65);
    expect(printableLine(controls.join("")).trim()).toBe("");
  });
});

describe("printableText()", () => {
  it("keeps line feeds and tabs only", () => {
    expect(printableText(attack)).toBe("a]0;title[31mb2Jc\nd\tefg");
  });

  it("does not let a carriage return overwrite a line", () => {
    expect(printableText("rm -rf /\recho hi")).toBe("rm -rf /echo hi");
  });
});

describe("printableJson()", () => {
  it("prints no control character and means the same", () => {
    const text = printableJson({ attack });
    expect(text.replaceAll("\n", "")).not.toMatch(/[\p{Cc}\p{Cf}]/u);
    expect(JSON.parse(text)).toEqual({ attack });
  });
});
