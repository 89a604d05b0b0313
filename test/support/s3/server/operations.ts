import { headBucket, listObjects } from "./listing.js";
import {
  abortMultipartUpload,
  completeMultipartUpload,
  createMultipartUpload,
  listMultipartUploads,
  listParts,
  uploadPart,
} from "./multipart.js";
import { deleteObject, deleteObjects, getObject, putObject } from "./objects.js";
import type { Operation } from "./operation.js";
import { S3Error } from "./s3-error.js";
import type { S3Request } from "./s3-request.js";

interface Route {
  readonly name: string;
  readonly method: string;
  readonly of: "bucket" | "object";
  /** that must be in the query */
  readonly needs: readonly string[];
  /** that may be in it as well */
  readonly takes?: readonly string[];
  readonly run: Operation;
}

const listQuery = ["prefix", "max-keys", "start-after", "continuation-token", "encoding-type", "fetch-owner"];
const uploadsQuery = ["prefix", "max-uploads", "key-marker", "upload-id-marker"];
const partsQuery = ["max-parts", "part-number-marker"];

/** The first one that fits is meant. */
const routes: readonly Route[] = [
  { name: "HeadBucket", method: "HEAD", of: "bucket", needs: [], run: headBucket },
  { name: "ListObjectsV2", method: "GET", of: "bucket", needs: ["list-type"], takes: listQuery, run: listObjects },
  {
    name: "ListMultipartUploads",
    method: "GET",
    of: "bucket",
    needs: ["uploads"],
    takes: uploadsQuery,
    run: listMultipartUploads,
  },
  { name: "DeleteObjects", method: "POST", of: "bucket", needs: ["delete"], run: deleteObjects },
  { name: "ListParts", method: "GET", of: "object", needs: ["uploadId"], takes: partsQuery, run: listParts },
  { name: "GetObject", method: "GET", of: "object", needs: [], run: getObject },
  { name: "HeadObject", method: "HEAD", of: "object", needs: [], run: getObject },
  { name: "UploadPart", method: "PUT", of: "object", needs: ["partNumber", "uploadId"], run: uploadPart },
  { name: "PutObject", method: "PUT", of: "object", needs: [], run: putObject },
  { name: "CreateMultipartUpload", method: "POST", of: "object", needs: ["uploads"], run: createMultipartUpload },
  { name: "CompleteMultipartUpload", method: "POST", of: "object", needs: ["uploadId"], run: completeMultipartUpload },
  { name: "AbortMultipartUpload", method: "DELETE", of: "object", needs: ["uploadId"], run: abortMultipartUpload },
  { name: "DeleteObject", method: "DELETE", of: "object", needs: [], run: deleteObject },
];

/** What a request asks for. Throws `S3Error` "NotImplemented" for all that is not known to the last parameter. */
export function routeOf({ method, key, query }: S3Request): Route {
  const names = Object.keys(query).filter((name) => name !== "x-id");
  const route = routes.find(
    (each) =>
      each.method === method &&
      each.of === (key === "" ? "bucket" : "object") &&
      each.needs.every((name) => names.includes(name)) &&
      names.every((name) => each.needs.includes(name) || each.takes?.includes(name) === true),
  );
  if (route === undefined)
    throw new S3Error(
      "NotImplemented",
      `A header or parameter implies functionality that is not here: ${names.join()}`,
    );
  return route;
}
