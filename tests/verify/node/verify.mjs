// Verifies an access token of Latchkey and prints whose it is: node verify.mjs TOKEN
import { createRemoteJWKSet, jwtVerify } from 'jose';

const issuer = process.env.ISSUER ?? 'http://localhost:3000';
// Make it once: it keeps the keys, and fetches them anew when a token names one that it has not seen.
const keys = createRemoteJWKSet(new URL('/.well-known/jwks.json', issuer));

async function verify(token) {
  const { payload } = await jwtVerify(token, keys, {
    issuer,
    audience: issuer, // or what LATCHKEY_AUDIENCE says
    algorithms: ['ES256'],
    typ: 'at+jwt',
    requiredClaims: ['exp', 'sub'],
    clockTolerance: 5,
  });
  return payload;
}

console.log((await verify(process.argv[2])).sub);
