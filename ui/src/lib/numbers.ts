/** Numbers, sizes, dates and times as people write them in the window's language. */

import type { Language } from "./bindings";

/** A language, how it writes dates and numbers, and what stands between a number and its unit. */
const ENGLISH = { locale: "en-GB", gap: " " };
const GERMAN = { locale: "de-DE", gap: "\u00a0" };
let written = ENGLISH;
let formats = new Map<number, Intl.NumberFormat>();

/** Writes numbers and dates as in this language from now on. */
export function writeAs(language: Language): void {
  written = language === "de" ? GERMAN : ENGLISH;
  formats = new Map();
}

/** "45,030": a number with this many decimals. */
export function decimal(value: number, digits = 0): string {
  let format = formats.get(digits);
  if (!format) {
    format = new Intl.NumberFormat(written.locale, { minimumFractionDigits: digits, maximumFractionDigits: digits });
    formats.set(digits, format);
  }
  return format.format(value);
}

/** "8 GB": a number that stays with its unit. */
export function unit(value: string, name: string): string {
  return `${value}${written.gap}${name}`;
}

export function gigabytes(bytes: number): string {
  return bytes < 1e9 ? unit(decimal(Math.round(bytes / 1e6)), "MB") : unit(decimal(bytes / 1e9, 1), "GB");
}

/** "8.6 GB" or "500 MB": an amount for a field and its unit, as the app reads it; none is "". */
export function amount(bytes: number | null | undefined): string {
  if (bytes === null || bytes === undefined) return "";
  return bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${Number((bytes / 1e9).toFixed(1))} GB`;
}

/** A number that the app has written, as people type it, and back. */
export function typed(number: string): string {
  return written === GERMAN ? number.replace(".", ",") : number;
}

export function untyped(number: string): string {
  return written === GERMAN ? number.replace(",", ".") : number;
}

/** "8B", "30.5B", "596M": parameters, as models are named by them. */
export function parameters(count: number): string {
  if (count < 1e9) return `${decimal(count / 1e6)}M`;
  const billions = count < 1e11 ? Math.round(count / 1e8) / 10 : Math.round(count / 1e9);
  return `${decimal(billions, Number.isInteger(billions) ? 0 : 1)}B`;
}

export function milliseconds(ms: number): string {
  return unit(decimal(ms, ms < 10 ? 1 : 0), "ms");
}

export function rate(bits: number): string {
  return bits >= 1e9 ? unit(decimal(bits / 1e9, 1), "Gbit/s") : unit(decimal(Math.max(1, bits / 1e6)), "Mbit/s");
}

export function speed(tokens: number): string {
  return unit(decimal(tokens, tokens < 10 ? 1 : 0), "tok/s");
}

/** "Friday, 27 November 2026": the date of a timestamp, in local time. */
export function day(at: string): string {
  return new Date(at).toLocaleDateString(written.locale, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
}

/** "14:02": the time of day of a timestamp, in local time. */
export function time(at: string): string {
  return new Date(at).toLocaleTimeString(written.locale, { hour: "2-digit", minute: "2-digit" });
}

/** "26 November": a date, with its year unless that is the present one. */
export function date(at: Date, now: Date): string {
  const year = at.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return at.toLocaleDateString(written.locale, { day: "numeric", month: "long", year });
}

export function several(count: number, one: string, more: string): string {
  return `${decimal(count)} ${count === 1 ? one : more}`;
}

export function together(names: string[]): string {
  return names.join(" + ");
}
