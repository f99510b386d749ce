/* What the cluster says, in words that an environment's owner can act on. */

const LONGEST = 300;

const PULL_CAUSES: [RegExp, string][] = [
  [/toomanyrequests|rate limit|429/i, "the registry limits how often it may be asked"],
  [
    /unauthorized|authorization failed|denied|authentication required|403 forbidden/i,
    "access denied; it is private, or its name is wrong",
  ],
  [
    /no such host|server misbehaving|lookup .* (?:i\/o timeout|on )/i,
    "the registry's name can't be resolved",
  ],
  [
    /dial tcp|connection refused|network is unreachable|i\/o timeout|TLS handshake|Client\.Timeout|deadline exceeded/i,
    "the registry can't be reached",
  ],
  [/no match for platform|exec format/i, "it is not made for this cluster's processors"],
  [/invalid reference format|InvalidImageName|couldn't parse image/i, "this is not an image's name"],
  [/not found|manifest unknown|does not exist|404/i, "not found"],
  [/no space left/i, "the node's disk is full"],
];

/** Why an image can't be pulled, from what kubelet and the container runtime say. */
export function imagePullWords(image: string, said: string): string {
  const known = PULL_CAUSES.find(([pattern]) => pattern.test(said))?.[1];
  return `image ${image} cannot be pulled: ${known ?? (lastCause(said) || "the cluster does not say why")}`;
}

/** The scheduler's sentence without its advice for administrators. */
export function unschedulableWords(said: string): string {
  if (/unbound immediate PersistentVolumeClaims|waiting for.*volume/i.test(said)) {
    return "Waiting for the volume";
  }
  return `No node has room: ${shorten(said.replace(/\s*preemption:.*$/s, ""))}`;
}

/** Why a container was not started, from kubelet's and the container runtime's words. */
export function startErrorWords(image: string, said: string): string {
  return neverStartsWords(image, said) ?? `the container can't be started: ${startCause(said)}`;
}

/** The same where it will not start at another attempt either. */
export function neverStartsWords(image: string, said: string): string | undefined {
  if (/\/bin\/sh.*(?:no such file|not found)/s.test(said)) return `image ${image} has no /bin/sh`;
  if (/exec format error/.test(said)) return `image ${image} is not made for this cluster's processors`;
  return undefined;
}

/** The cause alone. containerd ends what runc has said with the name of a code that says nothing. */
export function startCause(said: string): string {
  return lastCause(said.replace(/: unknown$/, "")) || "the cluster does not say why";
}

/** Where what the cluster says is that one of an environment's own objects is not there: which one. */
export function missingWords(said: string): string | undefined {
  const object = /(?:configmap|secret|serviceaccount|persistentvolumeclaim) "[^"]*"(?= not found)/.exec(
    said,
  )?.[0];
  return object && `${object} is missing in the cluster`;
}

/** The end of a chain of "doing a: doing b: cause", where the cause stands. */
function lastCause(said: string): string {
  return shorten(said.split(/: (?=[^:]*$)/).at(-1) ?? said);
}

export function shorten(text: string): string {
  const line = text.replace(/[\p{Cc}\s]+/gu, " ").trim();
  return line.length > LONGEST ? `${line.slice(0, LONGEST - 1)}…` : line;
}
