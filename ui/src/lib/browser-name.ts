/** The name of this browser among the owner's keys, such as "Safari on iPhone". */
export function nameOf(agent: string): string {
  const find = (names: [RegExp, string][], otherwise: string) => names.find(([sign]) => sign.test(agent))?.[1] ?? otherwise;
  const browser = find([[/Edg\//, "Edge"], [/Firefox|FxiOS/, "Firefox"], [/Chrom|CriOS/, "Chrome"], [/Safari/, "Safari"]], "Browser");
  const device = find(
    [[/iPhone/, "iPhone"], [/iPad/, "iPad"], [/Android/, "Android"], [/Mac/, "Mac"], [/Windows/, "Windows"], [/Linux/, "Linux"]],
    "",
  );
  return device ? `${browser} on ${device}` : browser;
}
