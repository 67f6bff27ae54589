/** Plans in words. */

import type { PlanView, PlannedStage } from "./node";
import { gigabytes, layers } from "./words";

const of = (stage: PlannedStage): number => stage.weight_bytes + stage.kv_bytes + stage.base_bytes;

/** Memory it would use on all machines. */
export const bytes = (plan: PlanView): number => plan.stages.reduce((sum, stage) => sum + of(stage), 0);

/** "Studio: layers 1–18, 4.1 GB" */
export const placed = (stage: PlannedStage): string => `${stage.node}: ${layers([stage.layers])}, ${gigabytes(of(stage))}`;
