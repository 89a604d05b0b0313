import tseslint from "typescript-eslint";

const restrictedEnvironment = {
  object: "process",
  property: "env",
  message: "only config.ts (daemon) and main.ts read the environment; take settings as arguments",
};

export default tseslint.config(
  { ignores: ["**/dist/**", "build/**", "**/node_modules/**", "native/**", "**/*.d.ts"] },
  {
    files: ["**/*.ts"],
    extends: [...tseslint.configs.strictTypeChecked, ...tseslint.configs.stylisticTypeChecked],
    languageOptions: {
      parserOptions: { project: ["{sdk,daemon,cli,test}/tsconfig.json"], tsconfigRootDir: import.meta.dirname },
    },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "@typescript-eslint/switch-exhaustiveness-check": "error",
      "@typescript-eslint/no-floating-promises": "error",
      "@typescript-eslint/explicit-module-boundary-types": "error",
      // numbers in messages are what messages are for
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true, allowBoolean: true }],
      // `socket.on("error", () => reject(error))` says what it does
      "@typescript-eslint/no-confusing-void-expression": "off",
      // types are checked against each other by expressions that have no effect
      "@typescript-eslint/no-unused-expressions": "off",
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "@typescript-eslint/dot-notation": ["error", { allowIndexSignaturePropertyAccess: true }],
      // an empty variable or text often counts as an absent one
      "@typescript-eslint/prefer-nullish-coalescing": ["error", { ignorePrimitives: { string: true } }],
      "@typescript-eslint/no-unnecessary-type-parameters": "off",
      "@typescript-eslint/use-unknown-in-catch-callback-variable": "off",
      "no-restricted-properties": ["error", restrictedEnvironment],
      "max-lines": ["error", { max: 350, skipBlankLines: true, skipComments: true }],
    },
  },
  {
    files: ["daemon/src/**/*.ts"],
    ignores: [
      "daemon/src/modules/run-tool.ts",
      "daemon/src/kernel/host-link.ts",
      "daemon/src/kernel/network/nft.ts",
      "daemon/src/store/ext4-template.ts",
      "daemon/src/store/pool-image.ts",
      "**/*.test.ts",
    ],
    rules: {
      "no-restricted-imports": [
        "error",
        {
          paths: [
            {
              name: "node:child_process",
              message:
                "starting a process blocks the event loop; only modules/run-tool.ts, kernel/host-link.ts and kernel/network/nft.ts do",
            },
          ],
        },
      ],
    },
  },
  {
    files: [
      "daemon/src/main.ts",
      "cli/src/environment.ts",
      "test/**/*.ts",
      "bench/**/*.ts",
      "**/*.test.ts",
      "**/testing/**/*.ts",
    ],
    rules: { "no-restricted-properties": "off" },
  },
  {
    files: ["**/*.test.ts", "**/testing/**/*.ts"],
    rules: {
      "@typescript-eslint/no-empty-function": "off",
      "@typescript-eslint/no-invalid-void-type": "off",
      "@typescript-eslint/no-non-null-assertion": "off",
      "@typescript-eslint/no-unsafe-assignment": "off",
      "@typescript-eslint/no-unsafe-call": "off",
      "@typescript-eslint/no-unsafe-member-access": "off",
      "@typescript-eslint/restrict-plus-operands": "off",
      "@typescript-eslint/restrict-template-expressions": "off",
      "@typescript-eslint/unbound-method": "off",
    },
  },
  {
    files: ["web/**/*.js"],
    rules: {
      "no-restricted-syntax": [
        "error",
        {
          selector: "MemberExpression[property.name=/^(innerHTML|outerHTML|insertAdjacentHTML)$/]",
          message: "what is shown is hostile: use textContent",
        },
      ],
      "no-eval": "error",
    },
  },
);
