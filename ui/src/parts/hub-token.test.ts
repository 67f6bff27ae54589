import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/svelte";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { Backend, barriers } from "../testing";
import HubToken from "./HubToken.svelte";

let backend: Backend;

beforeEach(() => {
  backend = new Backend();
  backend.answers["GET /hub-token"] = () => ({ stored: false, in_environment: false });
});

afterEach(cleanup);

const field = () => screen.getByLabelText<HTMLInputElement>("Hugging Face token");

describe("a token", () => {
  it("is saved, never shown, and removed", async () => {
    const saved = vi.fn();
    render(HubToken, { saved });
    expect(field().type).toBe("password");
    expect(screen.getByRole<HTMLButtonElement>("button", { name: "Save token" }).disabled).toBe(true);
    await fireEvent.input(field(), { target: { value: "hf_secret" } });
    backend.answers["GET /hub-token"] = () => ({ stored: true, in_environment: false });
    await fireEvent.click(screen.getByRole("button", { name: "Save token" }));
    await waitFor(() => expect(saved).toHaveBeenCalledOnce());
    expect(backend.of("PUT /hub-token")).toEqual([{ token: "hf_secret" }]);
    expect([field().value, field().placeholder]).toEqual(["", "A token is saved"]);
    expect(await barriers()).toEqual([]);
    backend.answers["GET /hub-token"] = () => ({ stored: false, in_environment: true });
    await fireEvent.click(screen.getByRole("button", { name: "Remove token" }));
    await waitFor(() => expect(field().placeholder).toBe("Using HF_TOKEN"));
    expect(backend.of("DELETE /hub-token")).toHaveLength(1);
    expect(screen.queryByRole("button", { name: "Remove token" })).toBeNull();
  });

  it("that is none is refused beside its field, and stays there to be corrected", async () => {
    const saved = vi.fn();
    backend.answers["PUT /hub-token"] = () => {
      throw { code: "malformed_token", message: "this is not a token", hint: null };
    };
    render(HubToken, { saved });
    await fireEvent.input(field(), { target: { value: "two words" } });
    await fireEvent.click(screen.getByRole("button", { name: "Save token" }));
    const alert = await screen.findByRole("alert");
    expect(alert.textContent).toBe("This is not a token");
    expect([field().value, field().getAttribute("aria-describedby")]).toEqual(["two words", alert.id]);
    expect(saved).not.toHaveBeenCalled();
    expect(await barriers()).toEqual([]);
  });
});
