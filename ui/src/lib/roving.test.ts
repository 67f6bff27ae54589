import { fireEvent } from "@testing-library/dom";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { roving } from "./roving";

let list: HTMLElement;
let stop = () => {};

const row = (name: string, current = false): string =>
  `<li><button class="title"${current ? ' aria-current="true"' : ""}>${name}</button><button>Rename ${name}</button></li>`;

function make(html: string, ...how: [item: string, row?: string]): void {
  document.body.innerHTML = `<ul>${html}</ul>`;
  list = document.querySelector("ul")!;
  stop = roving(...how)(list);
}

beforeEach(() => make(row("a") + row("b", true) + row("c"), ".title", "li"));
afterEach(() => stop());

const stops = (): (string | null)[] =>
  [...list.querySelectorAll<HTMLElement>("button, input")].filter((one) => one.tabIndex === 0).map((one) => one.textContent);
const here = (): string | null | undefined => document.activeElement?.textContent;
const press = (key: string, more = {}): Promise<boolean> => fireEvent.keyDown(document.activeElement!, { key, ...more }) as never;
const focus = (name: string): void =>
  [...list.querySelectorAll("button")].find((one) => one.textContent === name)!.focus();

describe("a list", () => {
  it("is one stop, at the current item", () => {
    expect(stops()).toEqual(["b"]);
  });

  it("is moved in by the arrow keys", () => {
    focus("b");
    press("ArrowDown");
    expect(here()).toBe("c");
    press("ArrowDown");
    expect(here()).toBe("c");
    press("Home");
    press("ArrowUp");
    expect(here()).toBe("a");
    press("End");
    expect(here()).toBe("c");
    expect(stops()).toEqual(["c"]);
  });

  it("has the buttons of a row beside it", () => {
    focus("b");
    press("ArrowRight");
    expect(here()).toBe("Rename b");
    press("ArrowRight");
    expect(here()).toBe("Rename b");
    press("ArrowDown");
    expect(here()).toBe("c");
    press("ArrowRight");
    press("ArrowLeft");
    expect(here()).toBe("c");
  });

  it("leaves keys with other meanings alone", () => {
    focus("b");
    for (const held of [{ ctrlKey: true }, { metaKey: true }, { altKey: true }, { shiftKey: true }]) press("ArrowDown", held);
    expect(here()).toBe("b");
    list.insertAdjacentHTML("beforeend", "<li><input /></li>");
    const field = list.querySelector("input")!;
    field.focus();
    press("Home");
    expect(document.activeElement).toBe(field);
    expect(field.tabIndex).toBe(0);
  });

  it("stays one stop when items come and go", async () => {
    focus("c");
    list.insertAdjacentHTML("afterbegin", row("new"));
    await expect.poll(stops).toEqual(["c"]);
    list.lastElementChild!.remove();
    await expect.poll(stops).toEqual(["b"]);
    list.innerHTML = "";
    list.innerHTML = row("only");
    await expect.poll(stops).toEqual(["only"]);
  });

  it("follows the current item until somebody has moved in it", async () => {
    list.querySelector("[aria-current]")!.removeAttribute("aria-current");
    list.querySelectorAll(".title")[2]!.setAttribute("aria-current", "true");
    await expect.poll(stops).toEqual(["c"]);
  });

  it("without rows is moved in by all arrows, and let go of", () => {
    stop();
    make("<button>1</button><button>2</button>", "button");
    focus("1");
    press("ArrowRight");
    expect(here()).toBe("2");
    press("ArrowLeft");
    expect(here()).toBe("1");
    stop();
    press("ArrowDown");
    expect(here()).toBe("1");
  });
});
