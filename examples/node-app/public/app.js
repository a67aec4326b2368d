// The page: each card is a module, and this starts them.

import { startChat } from './chat.js';
import { startClock } from './clock.js';
import { showIdentity } from './identity.js';
import { startUpload } from './upload.js';
import { startWeather } from './weather.js';

showIdentity();
// An app that went and came back may be another process, with another uid.
startClock({ onTurn: showIdentity });
startChat();
startUpload();
startWeather();
