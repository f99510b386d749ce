/**
 * What `make` gives, made at the first use and kept. For what costs too much to be made at every start and
 * may never be needed, such as a prepared query.
 */
export function lazily<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
