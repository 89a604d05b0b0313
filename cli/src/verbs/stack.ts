import type { RunningPolicy, SandboxInfo, StackRequest } from "@squash/sdk";
import { Option, type Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Context } from "../context.js";
import { secretNames, wholeNumber } from "../options.js";

/** `sq restore`, `sq activate`, `sq deactivate`, `sq fork`: other stacks, and copies. */
export function addStack(program: Command, context: Context): void {
  const restore = stackCommand("restore", "bring files and modules of a snapshot back, exactly", "<label>");
  withJson(restore).action(
    action(context, async (self, id: string, label: string) => {
      const value = await context.client().sandbox(id).restore(label, stackOf(self), { signal: context.signal });
      printAnswer(context, self, { value, render: renderStack });
    }),
  );
  const activate = stackCommand("activate", "add a module to a sandbox's stack; what was written stays", "<module>");
  withJson(activate).action(
    action(context, async (self, id: string, module: string) => {
      const value = await context.client().sandbox(id).activate(module, stackOf(self), { signal: context.signal });
      printAnswer(context, self, { value, render: renderStack });
    }),
  );
  const deactivate = stackCommand("deactivate", "take a module away; what was written stays", "<module>");
  withJson(deactivate).action(
    action(context, async (self, id: string, module: string) => {
      const value = await context.client().sandbox(id).deactivate(module, stackOf(self), { signal: context.signal });
      printAnswer(context, self, { value, render: renderStack });
    }),
  );
  const fork = program
    .command("fork")
    .description("create sandboxes with the same stack, limits, policy and files; prints their ids")
    .argument("<id>")
    .argument("[target]", "id of the one fork")
    .option("-c, --count <number>", "forks with ids that are made up", wholeNumber)
    .option(
      "--secrets <names>",
      'secrets that they may use, separated by commas, "none" or "all" (as the sandbox)',
      secretNames,
    )
    .option("--from <label>", "the files of a snapshot; of the present, if absent")
    .addHelpText("after", "\nExamples:\n  sq fork box twin\n  sq fork box --count 10 --from clean\n");
  withJson(fork).action(
    action(context, async (self, id: string, target: string | undefined) => {
      const { count, from, secrets } = self.opts<{ count?: number; from?: string; secrets?: string[] | "all" }>();
      const request = {
        ...(target === undefined ? {} : { target_id: target }),
        ...(count === undefined ? {} : { count }),
        ...(from === undefined ? {} : { from }),
        ...(secrets === undefined ? {} : { secrets: secrets === "all" ? null : secrets }),
      };
      const forks = await context.client().sandbox(id).fork(request, { signal: context.signal });
      const value = forks.map(({ id: made, created }) => created ?? { id: made });
      printAnswer(context, self, { value, render: (made) => made.map((one) => `${one.id}\n`).join("") });
    }),
  );

  function stackCommand(name: string, description: string, what: string): Command {
    const running = new Option("--running <policy>", "what happens to what runs in it: none survives")
      .choices(["refuse", "kill", "wait"])
      .default("refuse");
    return program
      .command(name)
      .description(description)
      .argument("<id>")
      .argument(what)
      .addOption(running)
      .option("--timeout <seconds>", 'how long to wait, with "wait"; 300, if absent', wholeNumber);
  }
}

function stackOf(command: Command): StackRequest {
  const { running, timeout } = command.opts<{ running: RunningPolicy; timeout?: number }>();
  return { running, ...(timeout === undefined ? {} : { timeout }) };
}

function renderStack({ layers }: SandboxInfo): string {
  return layers.map((layer) => `${layer}\n`).join("");
}
