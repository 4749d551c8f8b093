// The door: the token is given once and the browser keeps a cookie that does not tell it.
const form = document.querySelector("form");
const words = document.querySelector("#words");

async function give(token) {
  const answer = await fetch("/login", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ token }),
  });
  if (answer.ok) location.replace("/");
  else words.textContent = "That is not the token.";
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  give(new FormData(form).get("token"));
});

const given = new URLSearchParams(location.hash.slice(1)).get("token"); // …/#token=SECRET: it never leaves the browser
if (given) {
  history.replaceState(null, "", "/");
  give(given);
}
