import type { components } from "./contract.js";

/** Any problem that the contract has (RFC 9457). A later server may send types that are not among them. */
export type AnyProblem = components["schemas"]["AnyProblem"];

/**
 * Whether this is a problem, or one of this type. Where it is false, the answer may come from a proxy on the way, or be of a
 * type that a later contract has.
 */
export function isProblem(value: unknown): value is AnyProblem;
export function isProblem<Type extends AnyProblem["type"]>(value: unknown, type: Type): value is Extract<AnyProblem, { type: Type }>;
export function isProblem(value: unknown, type?: string): boolean {
  if (typeof value !== "object" || value === null || !("type" in value) || typeof value.type !== "string") return false;
  return type === undefined ? "status" in value && typeof value.status === "number" : value.type === type;
}

/** What is thrown where no result can be given back: an answer that is not what was asked for. */
export class ProblemError extends Error {
  override readonly name = "ProblemError";
  /** The problem in the answer; undefined if there is none, as in the answer of a proxy. */
  readonly problem: AnyProblem | undefined;

  constructor(error: unknown, readonly response: Response) {
    const problem = isProblem(error) ? error : undefined;
    super(problem?.detail ?? `the server answered ${response.status}`);
    this.problem = problem;
  }
}
