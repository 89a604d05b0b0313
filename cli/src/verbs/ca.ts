import type { AuthorityInfo } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Context } from "../context.js";
import { renderFacts } from "../table.js";

/** `sq ca`: the certificate authority that sandboxes trust, so that secrets can be put into what they encrypt. */
export function addCa(program: Command, context: Context): void {
  const ca = program.command("ca").description("show and replace the certificate authority that sandboxes trust");
  const { signal } = context;

  withJson(ca.command("show").description("show the one that new sandboxes trust"))
    .option("--pem", "print the certificate alone")
    .action(
      action(context, async (self) => {
        const value = await context.client().ca({ signal });
        const { pem } = self.opts<{ pem?: true }>();
        printAnswer(context, self, {
          value,
          render: (found) => (pem === true ? found.certificate_pem : render(found)),
        });
      }),
    );

  withJson(
    ca.command("rotate").description("make another one; sandboxes of before go on with the one they trust"),
  ).action(
    action(context, async (self) => {
      const value = await context.client().rotateCa({ signal });
      printAnswer(context, self, { value, render });
    }),
  );

  function render({ fingerprint, not_after: notAfter }: AuthorityInfo): string {
    return renderFacts(
      [
        ["fingerprint", fingerprint],
        ["good until", notAfter],
      ],
      context.colors,
    );
  }
}
