const ISO_TIME =
  /^(\d{4})-(\d{2})-(\d{2})(?:[Tt ](\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?)(Z|z|[+ -]\d{2}:?\d{2})?)?$/;

/**
 * The time that an ISO 8601 text names, in milliseconds since the epoch; undefined for what is none, such
 * as 30 February. Without a zone it is UTC. A space before the zone's digits is the plus sign that a query
 * string has swallowed.
 */
export function parseIsoTime(text: string): number | undefined {
  const match = ISO_TIME.exec(text);
  if (!match) return undefined;
  const [, year, month, day, time = "00:00", zone = "Z"] = match;
  // Date.parse takes the 30th of February for the 1st of March.
  const date = new Date(`${year}-${month}-${day}T00:00:00Z`);
  if (Number.isNaN(date.getTime()) || date.getUTCDate() !== Number(day)) return undefined;
  const ms = Date.parse(
    `${year}-${month}-${day}T${time.replace(",", ".")}${zone.toUpperCase().replace(" ", "+")}`,
  );
  return Number.isNaN(ms) ? undefined : ms;
}
