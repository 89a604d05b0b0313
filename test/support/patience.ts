/** How many times longer than usual a test may wait, on a machine that is slow: `TEST_PATIENCE`, which an emulated one sets. */
export const patience = Math.max(1, Number(process.env["TEST_PATIENCE"] ?? 1) || 1);
