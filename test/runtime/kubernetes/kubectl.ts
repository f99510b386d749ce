/** Runs kubectl on the cluster that KUBECONFIG names, and gives what it prints. */
export async function kubectl(args: string[], stdin = ""): Promise<string> {
  const run = Bun.spawn(["kubectl", ...args], { stdin: Buffer.from(stdin), stdout: "pipe", stderr: "pipe" });
  const [code, output, errors] = await Promise.all([run.exited, run.stdout.text(), run.stderr.text()]);
  if (code !== 0) throw new Error(`kubectl ${args.join(" ")}: ${errors}`);
  return output.trim();
}
