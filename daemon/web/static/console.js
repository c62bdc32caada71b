"use strict";
/* Niceties only: every page works without this file. */

/* Times are written in UTC; who points at one sees it by their own clock. */
for (const time of document.querySelectorAll("time[datetime]")) {
  const moment = new Date(time.dateTime);
  if (!Number.isNaN(moment.getTime())) time.title = moment.toLocaleString();
}

/* A form that was just sent is on its way: a second press would only send it again. */
for (const form of document.querySelectorAll('form[method="post"]')) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
    setTimeout(() => delete form.dataset.sent, 3000); /* what came may be a file, and the page is still here */
  });
}
