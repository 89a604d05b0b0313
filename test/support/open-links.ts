import type { TestNetns } from "./netns.js";

/** Takes the firewall away from all sandboxes of a squashd: its rules, and the links' group, by which its second table knows them. */
export function openLinks(netns: TestNetns): void {
  // the table itself stays, or squashd would close all links until it is loaded again
  netns.run("nft", "flush", "table", "inet", "squash");
  for (const link of netns.links()) netns.run("ip", "link", "set", "dev", link, "group", "default");
}
