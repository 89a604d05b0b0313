import { describe, expect, it } from "vitest";
import { mappableFormats } from "./image-formats.js";

describe("mappableFormats()", () => {
  it.each([
    ["6.1.0-56-cloud-amd64", ["erofs"]],
    ["5.19.0", ["erofs"]],
    ["6.2.0", ["erofs", "squashfs"]],
    ["6.18.3+", ["erofs", "squashfs"]],
    ["7.0-rc1", ["erofs", "squashfs"]],
    ["5.15.0-91-generic", []],
  ])("of %s are %j", (release, formats) => {
    expect(mappableFormats(release)).toEqual(formats);
  });
});
