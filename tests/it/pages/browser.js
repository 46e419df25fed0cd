// Opens the status page in Chromium as a person would: at two sizes, in light and dark, clicking
// filters and pages. Arguments: the page's URL, the folder of npm packages, a folder for
// screenshots. Prints what it found as JSON.
const fs = require('fs');
const path = require('path');
const [url, packages, pictures] = process.argv.slice(2);
const { chromium } = require(path.join(packages, 'playwright-core'));
const axe = fs.readFileSync(path.join(packages, 'axe-core', 'axe.min.js'), 'utf8');

const sizes = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };

async function look(browser, size, colorScheme) {
  const context = await browser.newContext({
    viewport: sizes[size], colorScheme, javaScriptEnabled: true, deviceScaleFactor: size === 'phone' ? 2 : 1,
  });
  const page = await context.newPage();
  const found = { size, colorScheme, console: [], elsewhere: [], axe: [], steps: [] };
  page.on('console', (message) => found.console.push(message.text()));
  page.on('pageerror', (error) => found.console.push(String(error)));
  page.on('request', (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith('data:')) found.elsewhere.push(request.url());
  });
  const rows = () => page.locator('tbody').first().locator('tr').count();
  const check = async (where) => {
    // Debugging tools may run scripts that the page's policy would not let in.
    await page.evaluate(axe + ';0');
    const result = await page.evaluate(() => axe.run());
    for (const violation of result.violations) {
      found.axe.push(`${where}: ${violation.id}: ${violation.help}: ${violation.nodes.map((n) => n.html).join(' ').slice(0, 500)}`);
    }
    found.axePasses = result.passes.length;
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    if (width > sizes[size].width) found.steps.push(`${where} is ${width} wide`);
  };
  const expect = (what, actual, expected) => {
    if (actual !== expected) found.steps.push(`${what}: ${actual}, not ${expected}`);
  };

  const response = await page.goto(url);
  expect('status', response.status(), 200);
  await check('the page');
  await page.screenshot({ path: path.join(pictures, `${size}-${colorScheme}.png`), fullPage: true });
  found.keys = await rows();

  // A filter by choosing, one by typing, and back.
  await page.getByLabel('Team').selectOption('payments');
  await page.getByRole('button', { name: 'Filter' }).click();
  expect('keys of a team', await rows(), 2);
  await page.getByRole('searchbox').fill('CHECK');
  await page.getByRole('button', { name: 'Filter' }).click();
  expect('keys of a team with a text', await rows(), 1);
  expect('query', new URL(page.url()).search, '?account=&team=payments&state=&q=CHECK');
  await check('a filtered page');
  await page.getByRole('link', { name: 'Show all', exact: true }).click();
  expect('all keys', await rows(), found.keys);
  await page.getByLabel('State').selectOption('attention');
  await page.getByRole('searchbox').fill('no such key');
  await page.getByRole('button', { name: 'Filter' }).click();
  const words = 'No key matches. Account “warehouse” was never listed: its keys are unknown.';
  expect('words', await page.locator('.empty').innerText(), words);
  await check('an empty page');

  // To a key and to an account by their links.
  await page.goto(url);
  await page.getByRole('rowheader', { name: 'Checkout' }).getByRole('link').click();
  expect('one key', await rows(), 1);
  await page.goto(url);
  await page.getByRole('row', { name: 'warehouse' }).getByRole('link').first().click();
  expect('no key', await page.locator('.empty').count(), 1);

  // Pages.
  await page.goto(url + '?limit=7');
  const seen = [];
  for (;;) {
    for (const id of await page.locator('tbody').first().locator('tr th').allInnerTexts()) seen.push(id);
    const next = page.getByRole('link', { name: 'Next' });
    if (await next.count() === 0) break;
    await next.click();
  }
  expect('keys on all pages', new Set(seen).size, found.keys);
  await page.getByRole('link', { name: 'First' }).click();
  expect('keys on the first page', await rows(), 7);
  await check('a page of several');

  // Details open without scripts, and reloading can be stopped.
  await page.goto(url + '?q=privileged');
  await page.locator('summary').click();
  expect('a scope', await page.getByText('users.deactivate').isVisible(), true);
  await check('open details');
  await page.getByRole('link', { name: 'Stop reloading' }).click();
  expect('filter kept', new URL(page.url()).search, '?q=privileged&refresh=0');
  expect('reload', await page.getByRole('link', { name: 'Reload every minute' }).count(), 1);
  await context.close();

  // The same page without scripts at all.
  const plain = await browser.newContext({ viewport: sizes[size], javaScriptEnabled: false });
  const still = await plain.newPage();
  await still.goto(url + '?team=payments');
  expect('keys without scripts', await still.locator('tbody').first().locator('tr').count(), 2);
  await plain.close();
  return found;
}

(async () => {
  fs.mkdirSync(pictures, { recursive: true });
  // Chromium's sandbox does not run as root, as which tests run in containers.
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
  const found = [];
  for (const size of Object.keys(sizes)) {
    for (const colorScheme of ['light', 'dark']) found.push(await look(browser, size, colorScheme));
  }
  await browser.close();
  console.log(JSON.stringify(found));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
