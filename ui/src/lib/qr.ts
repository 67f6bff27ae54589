/** A QR code as a path of unit squares. The library is loaded when the first code is shown. */

export type Code = { path: string; size: number };

/** Light modules around the code, without which scanners do not find it. */
const QUIET = 4;

export async function qr(text: string): Promise<Code> {
  const { default: qrcode } = await import("qrcode-generator");
  const code = qrcode(0, "L");
  code.addData(text);
  code.make();
  const modules = code.getModuleCount();
  const numbers = [...Array(modules).keys()];
  const dark = numbers.flatMap((row) => numbers.filter((column) => code.isDark(row, column)).map((column) => [row, column]));
  const path = dark.map(([row, column]) => `M${column! + QUIET} ${row! + QUIET}h1v1h-1z`).join("");
  return { path, size: modules + 2 * QUIET };
}
