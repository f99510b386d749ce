import { expect, test } from "bun:test";
import {
  imagePullWords,
  startErrorWords,
  unschedulableWords,
} from "../../../src/runtime/kubernetes/words.ts";

test.each([
  [
    'rpc error: code = NotFound desc = failed to pull and unpack image "docker.io/library/a:1": failed to resolve reference "docker.io/library/a:1": docker.io/library/a:1: not found',
    "not found",
  ],
  [
    "Error response from daemon: pull access denied for a, repository does not exist or may require 'docker login'",
    "access denied; it is private, or its name is wrong",
  ],
  [
    'failed to do request: Head "https://registry-1.docker.io/v2/library/a/manifests/1": dial tcp: lookup registry-1.docker.io: Temporary failure in name resolution',
    "the registry can't be reached",
  ],
  ["dial tcp: lookup registry.example on 10.0.0.2:53: no such host", "the registry's name can't be resolved"],
  ["toomanyrequests: You have reached your pull rate limit", "the registry limits how often it may be asked"],
  ['couldn\'t parse image reference "A:::": invalid reference format', "this is not an image's name"],
  ["rpc error: something quite new", "something quite new"],
  ["", "the cluster does not say why"],
])("an image can't be pulled: %s", (said, cause) => {
  expect(imagePullWords("a:1", said)).toBe(`image a:1 cannot be pulled: ${cause}`);
});

test.each([
  [
    "0/3 nodes are available: 3 Insufficient memory.",
    "No node has room: 0/3 nodes are available: 3 Insufficient memory.",
  ],
  [
    "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found.",
    "No node has room: 0/1 nodes are available: 1 Insufficient cpu.",
  ],
  ["0/1 nodes are available: 1 pod has unbound immediate PersistentVolumeClaims.", "Waiting for the volume"],
])("a pod can't be scheduled: %s", (said, words) => {
  expect(unschedulableWords(said)).toBe(words);
});

test.each([
  [
    'OCI runtime create failed: exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown',
    "image a:1 has no /bin/sh",
  ],
  ["standard_init_linux.go: exec format error", "image a:1 is not made for this cluster's processors"],
  ["failed to create shim: mount refused", "the container can't be started: mount refused"],
  ["runc create failed: context canceled: unknown", "the container can't be started: context canceled"],
  ["", "the container can't be started: the cluster does not say why"],
])("a container can't be started: %s", (said, words) => {
  expect(startErrorWords("a:1", said)).toBe(words);
});
