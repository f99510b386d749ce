import { pathToFileURL } from "node:url";

/*
 * openapi-typescript makes types with the factory of TypeScript 5, which TypeScript 7 no longer has: it is
 * bundled here with the name "typescript" leading to the former, which package.json has as "typescript5".
 */

/** TypeScript types of an OpenAPI document. @param folder where the bundle may be put */
export async function typesOf(document: object, folder: string): Promise<string> {
  const built = await Bun.build({
    entrypoints: [Bun.resolveSync("openapi-typescript", import.meta.dir)],
    outdir: folder,
    target: "bun",
    plugins: [
      {
        name: "typescript 5",
        setup(build) {
          const path = Bun.resolveSync("typescript5", import.meta.dir);
          build.onResolve({ filter: /^typescript$/ }, () => ({ path, external: true }));
        },
      },
    ],
  });
  const [bundle] = built.outputs;
  if (!bundle) throw new AggregateError(built.logs, "openapi-typescript could not be bundled");
  const { default: openapiTS, astToString }: typeof import("openapi-typescript") = await import(
    pathToFileURL(bundle.path).href
  );
  return astToString(await openapiTS(JSON.stringify(document)));
}
