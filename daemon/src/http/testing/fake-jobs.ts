import type { JobInfo, JobRequest } from "@squash/sdk/protocol";
import { Jobs, type JobPlan } from "../../core/jobs.js";
import type { JobService, ModuleUpload } from "../../core/service.js";

/** Jobs that do what a test says. It keeps what was asked for. */
export class FakeJobs implements JobService {
  readonly requests: (JobRequest | { readonly tar: string; readonly text: string })[] = [];
  readonly #jobs = new Jobs({ newId: () => `job-${this.requests.length}`, report: () => undefined });
  run: JobPlan["run"] = () => Promise.resolve();

  start(request: JobRequest): Promise<JobInfo> {
    this.requests.push(request);
    return Promise.resolve(
      this.#jobs.start({ kind: request.kind, module: "name" in request ? (request.name ?? "") : "", run: this.run }),
    );
  }

  async startFromTar(name: string, { body }: ModuleUpload): Promise<JobInfo> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of body) chunks.push(chunk);
    this.requests.push({ tar: name, text: Buffer.concat(chunks).toString() });
    return this.#jobs.start({ kind: "from-tar", module: name, run: this.run });
  }

  list(): JobInfo[] {
    return this.#jobs.list();
  }

  get(id: string): JobInfo {
    return this.#jobs.get(id);
  }

  watch(id: string, listener: () => void): () => void {
    return this.#jobs.watch(id, listener);
  }

  remove(id: string): Promise<void> {
    return this.#jobs.remove(id);
  }
}
