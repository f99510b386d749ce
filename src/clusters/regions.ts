export interface Region {
  name: string;
  displayName: string;
  /** Null: not known. */
  country: string | null;
  provider: string;
}

/** Some that administrators of such clusters use; any other can be given too. */
const KNOWN_REGIONS: readonly Region[] = [
  { name: "GRA7", displayName: "Gravelines 7", country: "France", provider: "ovh" },
  { name: "SBG5", displayName: "Strasbourg 5", country: "France", provider: "ovh" },
  { name: "DE1", displayName: "Limburg 1", country: "Germany", provider: "ovh" },
  { name: "WAW1", displayName: "Warsaw 1", country: "Poland", provider: "ovh" },
  { name: "BHS5", displayName: "Beauharnois 5", country: "Canada", provider: "ovh" },
  { name: "SGP1", displayName: "Singapore 1", country: "Singapore", provider: "ovh" },
  { name: "fsn1", displayName: "Falkenstein", country: "Germany", provider: "hetzner" },
  { name: "hel1", displayName: "Helsinki", country: "Finland", provider: "hetzner" },
  { name: "eu-central-1", displayName: "Frankfurt", country: "Germany", provider: "aws" },
  { name: "us-east-1", displayName: "Northern Virginia", country: "United States", provider: "aws" },
  { name: "ap-southeast-1", displayName: "Singapore", country: "Singapore", provider: "aws" },
  { name: "europe-west1", displayName: "St. Ghislain", country: "Belgium", provider: "gcp" },
  { name: "us-central1", displayName: "Iowa", country: "United States", provider: "gcp" },
  { name: "westeurope", displayName: "West Europe", country: "Netherlands", provider: "azure" },
  { name: "eastus", displayName: "East US", country: "United States", provider: "azure" },
];

/** The known regions, then those in use that are not among them. */
export function regionsWith(used: readonly { region: string; provider: string }[]): Region[] {
  const key = (name: string, provider: string) => `${provider}\n${name}`;
  const regions = new Map(KNOWN_REGIONS.map((region) => [key(region.name, region.provider), region]));
  for (const { region, provider } of used) {
    const here = key(region, provider);
    if (!regions.has(here)) regions.set(here, { name: region, displayName: region, country: null, provider });
  }
  return [...regions.values()];
}
