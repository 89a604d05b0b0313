import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Context } from "../context.js";
import { UsageError } from "../exit-status.js";
import { addCreateFlags, commaSeparated, createOptions, type CreateFlags } from "../options.js";

const help = `
Prints the id. Owner, layers and task may also follow the id, in this order.

Examples:
  sq create box
  sq create box --layers 000-base-debian,100-python312 --memory-mb 2048 --max-lifetime 3600
  sq create box alice 000-base-debian "try the new parser"
  sq create box --allow-net 'pypi.org,files.pythonhosted.org:443'     see "sq net --help" for what an entry is
`;

/** `sq create`: a sandbox that stays. */
export function addCreate(program: Command, context: Context): void {
  const command = program
    .command("create")
    .description("create a sandbox")
    .argument("<id>", "1 to 64 of A-Z a-z 0-9 _ -, not starting or ending with -")
    .argument("[owner]")
    .argument("[layers]")
    .argument("[task]");
  addCreateFlags(withJson(command)).addHelpText("after", help).action(action(context, create));

  async function create(self: Command, id: string, owner?: string, layers?: string, task?: string): Promise<void> {
    const flags = merge(self.opts<CreateFlags>(), { owner, layers, task });
    const sandbox = await context.client().create({ ...createOptions(flags), id, signal: context.signal });
    printAnswer(context, self, { value: sandbox.created, render: () => `${sandbox.id}\n` });
  }
}

type Words = Readonly<Record<"owner" | "layers" | "task", string | undefined>>;

/** Throws `UsageError` for what is given twice. */
function merge(flags: CreateFlags, words: Words): CreateFlags {
  for (const name of ["owner", "layers", "task"] as const) {
    if (words[name] === undefined) continue;
    if (flags[name] !== undefined)
      throw new UsageError(`Cannot create: the ${name} is given twice, as --${name} and after the id`);
  }
  const { owner, layers, task } = words;
  return {
    ...flags,
    ...(owner !== undefined && { owner }),
    ...(layers !== undefined && { layers: commaSeparated(layers) }),
    ...(task !== undefined && { task }),
  };
}
