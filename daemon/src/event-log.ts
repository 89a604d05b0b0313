import type { Logger } from "pino";
import type { DomainEvent, Emit } from "./core/events.js";

/** Writes each fact once: lifecycle as info, what we coped with as warn, what somebody must look at as error, commands as debug. */
export function logEvents(log: Logger): Emit {
  const commandsShown = log.isLevelEnabled("debug");
  return (event: DomainEvent) => {
    const { type, ...facts } = event;
    switch (type) {
      case "sandbox.create":
      case "sandbox.destroy":
        log.info(facts, type);
        break;
      case "sandbox.exec":
        if (commandsShown) log.debug(facts, type);
        break;
      case "network.decided":
      case "secret.used":
        break; // these have logs of their own
      case "cell.made":
      case "snapshot.taken":
      case "snapshot.removed":
        log.debug(facts, type);
        break;
      case "swept":
      case "sandbox.recovered":
      case "snapshot.expired":
      case "snapshot.merged":
        log.info(facts, type);
        break;
      case "leftover":
      case "unwritten":
      case "sandbox.died":
      case "sandbox.fenced":
      case "cell.failed":
      case "host.restarted":
      case "snapshot.upkeep":
        log.warn(facts, type);
        break;
      case "record.damaged":
      case "snapshot.damaged":
      case "secrets.problem":
        log.error(facts, type);
        break;
    }
  };
}
