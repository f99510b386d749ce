import { afterEach, expect, test } from "bun:test";
import { createLogger } from "../../../src/lib/logger.ts";
import { createKubeClient } from "../../../src/runtime/kubernetes/api/client.ts";
import type { Restriction } from "../../../src/runtime/kubernetes/api/objects.ts";
import { userManifests } from "../../../src/runtime/kubernetes/manifests/usermanifests.ts";
import {
  givenBack,
  type Isolation,
  watchIsolation,
} from "../../../src/runtime/kubernetes/watch/isolation.ts";
import { until } from "../../until.ts";
import { listOf, StandIn } from "./stand-in.ts";

const USER = "u1";
const NAMESPACE = "devpocket-u1";
const MANIFESTS = userManifests(USER, null, "s1");
const QUOTA = { hard: { "limits.cpu": "1" } };

function restriction(spec: Restriction["spec"], name = "devpocket"): Restriction {
  return { metadata: { name, namespace: NAMESPACE, resourceVersion: "2" }, spec };
}
const POLICY = restriction(givenBack(MANIFESTS.networkPolicy));
const LIMITS = restriction(givenBack(MANIFESTS.limitRange));

const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end();
});

type Found = { networkpolicies: Restriction[]; limitranges: Restriction[]; resourcequotas: Restriction[] };

/** Looks at a cluster that has `found`, and is told of what happens to it. */
function watching(found: Partial<Found>, status = 200) {
  const watches = new Map<string, ReadableStreamDefaultController<string>>();
  const standIn = new StandIn({
    request(url) {
      const kind = url.pathname.split("/").at(-1) ?? "";
      if (status !== 200) return new Response("{}", { status });
      if (!url.searchParams.has("watch")) return listOf(Reflect.get(found, kind) ?? []);
      return new Response(new ReadableStream<string>({ start: (stream) => void watches.set(kind, stream) }));
    },
  });
  const stop = new AbortController();
  const turns: string[] = [];
  const isolation = watchIsolation({
    client: createKubeClient(standIn.connection),
    serverId: "s1",
    log: createLogger({ format: "text", level: "error", write: () => {} }),
    signal: stop.signal,
    onTurn: (namespace) => turns.push(namespace),
  });
  ends.push(
    () => stop.abort(),
    () => void standIn.close(),
  );
  return {
    isolation,
    standIn,
    turns,
    began: () => until(() => watches.size === 3),
    tell(kind: keyof Found, type: "ADDED" | "MODIFIED" | "DELETED", object: Restriction) {
      watches.get(kind)?.enqueue(`${JSON.stringify({ type, object })}\n`);
    },
  };
}

const hasNone = (isolation: Isolation) => until(() => isolation.problem(USER) === undefined);
const has = (isolation: Isolation, message: string) =>
  until(() => isolation.problem(USER)?.message === message, {
    message: () => JSON.stringify(isolation.problem(USER)),
  });

test("what is as it was made is no problem, nor is what somebody has made beside it", async () => {
  const beside = restriction({ podSelector: {} }, "another");
  const { isolation, began, turns } = watching({ networkpolicies: [beside, POLICY], limitranges: [LIMITS] });
  await began();
  await hasNone(isolation);
  expect(turns).toEqual([]);
});

test("a policy that is deleted is missing until it is there again, and both are told of", async () => {
  const { isolation, began, tell, turns } = watching({ networkpolicies: [POLICY], limitranges: [LIMITS] });
  await began();
  tell("networkpolicies", "DELETED", POLICY);
  await has(isolation, 'networkpolicy "devpocket" is missing in the cluster');
  expect(turns).toEqual([NAMESPACE]);
  tell("networkpolicies", "ADDED", POLICY);
  await hasNone(isolation);
  expect(turns).toEqual([NAMESPACE, NAMESPACE]);
});

test("what was edited while nobody looked is altered, and what the cluster makes of our own is not", async () => {
  const edited = restriction({ ...POLICY.spec, ingress: [{}] });
  const { isolation } = watching({ networkpolicies: [edited], limitranges: [LIMITS] });
  await has(isolation, 'networkpolicy "devpocket" was changed in the cluster; it is changed back');
  isolation.wrote(USER, "networkpolicies", restriction({ ...POLICY.spec, ofALaterVersion: true }));
  expect(isolation.problem(USER)).toBeUndefined();
});

test("a quota is right as it is found or written, its use aside, and altered or missing from then on", async () => {
  const quota = restriction(QUOTA);
  const { isolation, began, tell, turns } = watching({
    networkpolicies: [POLICY],
    limitranges: [LIMITS],
    resourcequotas: [quota],
  });
  await began();
  await hasNone(isolation);
  tell("resourcequotas", "MODIFIED", { ...quota, metadata: { ...quota.metadata, resourceVersion: "3" } });
  const raised = { hard: { "limits.cpu": "9" } };
  tell("resourcequotas", "MODIFIED", restriction(raised));
  await has(isolation, 'resourcequota "devpocket" was changed in the cluster; it is changed back');
  expect(turns).toEqual([NAMESPACE]);
  isolation.wrote(USER, "resourcequotas", restriction(raised));
  expect(isolation.problem(USER)).toBeUndefined();
  tell("resourcequotas", "DELETED", quota);
  await has(isolation, 'resourcequota "devpocket" is missing in the cluster');
  // Its owner has become an administrator, who has none.
  isolation.wrote(USER, "resourcequotas", null);
  expect(isolation.problem(USER)).toBeUndefined();
});

test("nothing is known where the watches are refused", async () => {
  const { isolation, standIn } = watching({}, 403);
  await until(() => standIn.asked.length >= 6);
  expect(isolation.problem(USER)).toBeUndefined();
});
