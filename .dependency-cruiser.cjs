/** Which folder may import which. A rule here is the architecture; see docs/architecture.md. */
module.exports = {
  forbidden: [
    { name: "no-cycles", severity: "error", from: {}, to: { circular: true } },
    {
      name: "core-is-pure",
      comment: "the domain knows no adapter, no HTTP and no process",
      severity: "error",
      from: { path: "^daemon/src/core" },
      to: { path: "^daemon/src/(?!core/)" },
    },
    {
      name: "core-without-node",
      comment: "the domain does no input or output of its own",
      severity: "error",
      from: { path: "^daemon/src/core", pathNot: "\\.test\\.ts$|/testing/" },
      to: { dependencyTypes: ["core"] },
    },
    {
      name: "adapters-apart",
      comment: "an adapter knows the domain and the wire contract, not other adapters; store's atomic files are shared",
      severity: "error",
      from: { path: "^daemon/src/(egress|http|kernel|modules|s3|secrets|store)/", pathNot: "\\.test\\.ts$|/testing/" },
      to: {
        path: "^daemon/src/",
        pathNot: ["^daemon/src/core/", "^daemon/src/store/atomic-file\\.ts$", "^daemon/src/$1/"],
      },
    },
    {
      name: "only-main-composes",
      severity: "error",
      from: { path: "^daemon/src/(core|egress|http|kernel|modules|s3|secrets|store)/", pathNot: "\\.test\\.ts$" },
      to: { path: "^daemon/src/[^/]+\\.ts$" },
    },
    {
      name: "sdk-stands-alone",
      comment: "the client has no dependency at all",
      severity: "error",
      from: { path: "^sdk/src", pathNot: "\\.test\\.ts$" },
      to: { pathNot: "^sdk/src", dependencyTypesNot: ["core", "type-only"] },
    },
    {
      name: "cli-uses-the-sdk",
      severity: "error",
      from: { path: "^cli/src" },
      to: { path: "^daemon/" },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules|dist" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.base.json" },
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["types", "import", "node"],
      extensions: [".ts", ".js"],
    },
  },
};
