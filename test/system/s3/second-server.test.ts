import { describe } from "vitest";
import { lacks } from "../../support/needs.js";
import { behavesAsS3 } from "../../support/s3/common-behaviour.js";
import { RadosGateway } from "../../support/s3/second-server.js";

describe.skipIf(lacks("radosgw"))("an S3 that others wrote", () => {
  behavesAsS3(() => RadosGateway.start());
});
