/** Conversations as the node sends them: with all fields, some of which it does not need to be sent. */

import type * as bindings from "./bindings";

type Whole<T> = T extends (infer Item)[] ? Whole<Item>[] : T extends object ? { [Field in keyof T]-?: Whole<T[Field]> } : T;

export type Entry = Whole<bindings.Entry>;
export type Choices = Whole<bindings.Choices>;
export type Message = Whole<bindings.Message>;
export type Computed = Whole<bindings.Computed>;
export type Conversation = Whole<bindings.Conversation>;
export type Status = Whole<bindings.Status>;
export type ChatEvent = Whole<bindings.ChatEvent>;
